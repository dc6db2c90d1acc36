"""Every error that the service answers with: its code, its HTTP status, its text.

The texts are those of the real service; where no live answer is on record,
those of its documentation.
"""

from __future__ import annotations

__all__ = ["ServiceError"]


class ServiceError(Exception):
    """An error as the API answers it.

    ``code`` is the API's name for it, ``status`` the HTTP status, the message
    its text. ``box_usage`` (hours of machine time) is what the failed request
    is billed, None where the real service sends none.
    """

    def __init__(
        self, code: str, message: str, status: int = 400, box_usage: float | None = 0.0000219907
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.box_usage = box_usage


# The request as such


def missing_action() -> ServiceError:
    """There is no ``Action``."""
    return ServiceError("MissingAction", "No action was supplied with this request.")


def invalid_action(action: str) -> ServiceError:
    """There is no such operation."""
    return ServiceError("InvalidAction", f"The action {action} is not valid for this web service.")


def no_such_version(version: str) -> ServiceError:
    """The API has another version."""
    return ServiceError(
        "NoSuchVersion",
        f"The requested version ({version}) of service AmazonSimpleDB does not exist.",
    )


def invalid_request(reason: str) -> ServiceError:
    """What was sent is no request of this API."""
    return ServiceError(
        "InvalidHttpRequest", f"The HTTP request is invalid. Reason: {reason}", box_usage=None
    )


def invalid_uri(path: str) -> ServiceError:
    """The API has one path only."""
    return ServiceError("InvalidURI", f"The URI {path} is not valid.", box_usage=None)


def uri_too_long(limit: int) -> ServiceError:
    """The request line and the headers are longer than we read."""
    return ServiceError(
        "URITooLong", f"The URI exceeded the maximum limit of {limit}.", box_usage=None
    )


def unsupported_verb(verb: str) -> ServiceError:
    """The verb is neither GET nor POST."""
    return ServiceError(
        "UnsupportedHttpVerb",
        f"The requested HTTP verb is not supported: {verb}",
        box_usage=None,
    )


def unavailable() -> ServiceError:
    """Busy: the client is to try again later."""
    return ServiceError(
        "ServiceUnavailable",
        "Service AmazonSimpleDB is currently unavailable. Please try again later",
        503,
    )


def internal() -> ServiceError:
    """A fault of our own."""
    return ServiceError(
        "InternalError", "Request could not be executed due to an internal service error.", 500
    )


# Who asks. The real service bills none of these.


def auth_missing() -> ServiceError:
    """There is no access key, or no signature."""
    return ServiceError(
        "AuthMissingFailure",
        "AWS was not able to authenticate the request: access keys are missing.",
        403,
        None,
    )


def unknown_key() -> ServiceError:
    """The access key is not ours."""
    return ServiceError(
        "InvalidClientTokenId",
        "The AWS Access Key Id you provided does not exist in our records.",
        403,
        None,
    )


def wrong_signature() -> ServiceError:
    """The signature was not made of this request with the secret key."""
    return ServiceError(
        "SignatureDoesNotMatch",
        "The request signature we calculated does not match the signature you provided. "
        "Check your AWS Secret Access Key and signing method. "
        "Consult the service documentation for details.",
        403,
        None,
    )


def incomplete_signature() -> ServiceError:
    """The signature is of a kind that is not known."""
    return ServiceError(
        "IncompleteSignature",
        "The request signature does not conform to AWS standards.",
        box_usage=None,
    )


def expired(kind: str, date: str) -> ServiceError:
    """The request was signed for another time."""
    return ServiceError(
        "RequestExpired", f"Request has expired. {kind} date is {date}.", box_usage=None
    )


# Parameters


def missing_parameter(name: str) -> ServiceError:
    """A parameter that the operation needs is missing."""
    return ServiceError("MissingParameter", f"The request must contain the parameter {name}.")


def missing_value(name: str) -> ServiceError:
    """An attribute to put has no value."""
    return ServiceError("MissingParameter", f"Attribute.Value missing for Attribute.Name='{name}'.")


def missing_name(value: str) -> ServiceError:
    """An attribute to put has no name."""
    return ServiceError(
        "MissingParameter", f"Attribute.Name missing for Attribute.Value='{value}'."
    )


def missing_both() -> ServiceError:
    """An attribute to put has neither name nor value."""
    return ServiceError("MissingParameter", "The request must contain the parameter Name")


def missing_name_to_delete() -> ServiceError:
    """An attribute to delete has a value only."""
    return ServiceError(
        "MissingParameter",
        "The request must contain the attribute Name, if an attribute Value is specified.",
    )


def no_attributes(item: str) -> ServiceError:
    """There is nothing to put."""
    return ServiceError("MissingParameter", f"No attributes for item ='{item}'.")


def invalid_value(value: str, parameter: str, reason: str) -> ServiceError:
    """A parameter's value is not allowed; ``reason`` with the blank before it, if it has one."""
    return ServiceError(
        "InvalidParameterValue", f"Value ({value}) for parameter {parameter} is invalid.{reason}"
    )


def invalid_combination(one: str, other: str) -> ServiceError:
    """Two parameters exclude each other."""
    return ServiceError(
        "InvalidParameterCombination",
        f"The parameter {one} cannot be used with the parameter {other}.",
    )


def replace_per_item() -> ServiceError:
    """``Replace`` is given for the item, as in the API of 2007."""
    return ServiceError(
        "FeatureDeprecated", "The replace flag must be specified per attribute, not per item."
    )


def duplicate_item(item: str) -> ServiceError:
    """A batch names an item twice."""
    return ServiceError("DuplicateItemName", f"Item {item} was specified more than once.")


def invalid_next_token() -> ServiceError:
    """The token is not ours, or of another query."""
    return ServiceError("InvalidNextToken", "The specified next token is not valid.")


# Limits


def too_many_domains() -> ServiceError:
    """The account is full."""
    return ServiceError("NumberDomainsExceeded", "The domain limit was exceeded.", 409)


def too_many_attributes() -> ServiceError:
    """One request has too many attributes."""
    return ServiceError(
        "NumberSubmittedAttributesExceeded", "Too many attributes in a single call.", 409
    )


def too_many_attributes_for(item: str) -> ServiceError:
    """One item of a batch has too many attributes."""
    return ServiceError(
        "NumberSubmittedAttributesExceeded",
        f"Too many attributes for item {item} in a single call. "
        "Up to 256 attributes per call allowed.",
        409,
    )


def too_many_items() -> ServiceError:
    """A batch has too many items."""
    return ServiceError(
        "NumberSubmittedItemsExceeded",
        "Too many items in a single call. Up to 25 items per call allowed.",
        409,
    )


def item_full() -> ServiceError:
    """The item would have too many attributes afterwards."""
    return ServiceError("NumberItemAttributesExceeded", "Too many attributes in this item.", 409)


# Data, and what was expected of it


def no_such_domain() -> ServiceError:
    """There is no such domain."""
    return ServiceError("NoSuchDomain", "The specified domain does not exist.")


def value_differs(name: str, value: str, expected: str) -> ServiceError:
    """The attribute has another value than expected."""
    return ServiceError(
        "ConditionalCheckFailed",
        f"Conditional check failed. Attribute ({name}) value is ({value}) "
        f"but was expected ({expected})",
        409,
    )


def value_exists(name: str) -> ServiceError:
    """The attribute was expected to be absent."""
    return ServiceError(
        "ConditionalCheckFailed", f"Conditional check failed. Attribute ({name}) value exists", 409
    )


def attribute_absent(name: str) -> ServiceError:
    """The attribute was expected to have a value."""
    return ServiceError("AttributeDoesNotExist", f"Attribute ({name}) does not exist", 404)


def multi_valued(name: str) -> ServiceError:
    """The attribute was expected to have one value, and has several."""
    return ServiceError(
        "MultiValuedAttribute",
        f"Attribute ({name}) is multi-valued. "
        "Conditional check can only be performed on a single-valued attribute",
        409,
    )


def expected_without_value() -> ServiceError:
    """A value is expected, and not said which."""
    return ServiceError(
        "IncompleteExpectedValues",
        "If Expected.Exists = True or unspecified, then Expected.Value has to be specified",
    )


def expected_absent_with_value() -> ServiceError:
    """Absence is expected, and a value too."""
    return ServiceError(
        "ExistsAndExpectedValue",
        "Expected.Exists=false and Expected.Value cannot be specified together",
    )


def several_expected_names() -> ServiceError:
    """Two attributes are expected something of."""
    return ServiceError("MultipleExpectedNames", "Only one Expected.Name can be specified")


def several_expected_values() -> ServiceError:
    """Two values are expected."""
    return ServiceError("MultipleExpectedValues", "Only one Expected.Value can be specified")


def several_expected_existences() -> ServiceError:
    """``Exists`` is given twice."""
    return ServiceError("MultipleExistsConditions", "Only one Exists condition can be specified")


# Select, beyond what its grammar refuses


def query_timeout(domain: str, expression: str, box_usage: float) -> ServiceError:
    """The query took too long to have a part of its answer."""
    return ServiceError(
        "QueryTimeout",
        f"A timeout occurred when attempting to query domain {domain} with query expression "
        f"{expression}. BoxUsage [{box_usage:.10f}]",
        408,
        box_usage,
    )
