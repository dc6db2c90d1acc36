"""One file a store, behind the contract in `truecount.stores.base`."""
