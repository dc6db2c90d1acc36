// Every operation through the AWS SDK for JavaScript, version 2.
// node client.js URL: prints what it saw as JSON. The keys are in the environment.
'use strict';
const AWS = require('aws-sdk');

const sdb = new AWS.SimpleDB({ region: 'us-east-1', endpoint: process.argv[2], maxRetries: 0 });
const call = (operation, parameters) => sdb[operation](parameters || {}).promise();
const refusal = (promise) => promise.then(
  () => 'nothing', (error) => `${error.statusCode} ${error.code}: ${error.message}`);
const pair = (Name, Value, Replace) => ({ Name, Value, Replace });
const sorted = (attributes) => (attributes || []).map((a) => `${a.Name}=${a.Value}`);

async function main() {
  const seen = {};
  const DomainName = 'js-domain';
  await call('createDomain', { DomainName });
  seen.domains = (await call('listDomains')).DomainNames;
  await call('putAttributes', {
    DomainName, ItemName: 'one', Attributes: [pair('a', '1'), pair('a', 'x y+z&\u20ac'), pair('b', 'c\rd')],
  });
  await call('batchPutAttributes', {
    DomainName,
    Items: [
      { Name: 'two', Attributes: [pair('a', '2')] },
      { Name: 'three', Attributes: [pair('a', '3'), pair('b', '3')] },
    ],
  });
  await call('putAttributes', {
    DomainName, ItemName: 'two', Attributes: [pair('a', '4', true)],
    Expected: { Name: 'a', Value: '2', Exists: true },
  });
  seen.refusal = await refusal(call('putAttributes', {
    DomainName, ItemName: 'two', Attributes: [pair('a', '5', true)], Expected: { Name: 'a', Value: '2' },
  }));
  seen.absent = await refusal(call('putAttributes', {
    DomainName, ItemName: 'two', Attributes: [pair('a', '5', true)], Expected: { Name: 'z', Value: '2' },
  }));
  seen.one = sorted((await call('getAttributes', {
    DomainName, ItemName: 'one', ConsistentRead: true })).Attributes);
  seen.some = sorted((await call('getAttributes', {
    DomainName, ItemName: 'one', ConsistentRead: true, AttributeNames: ['b'] })).Attributes);
  seen.nobody = sorted((await call('getAttributes', { DomainName, ItemName: 'nobody' })).Attributes);
  seen.pages = [];
  let NextToken;
  do {
    const page = await call('select', {
      SelectExpression: 'select * from `js-domain` where a > \'0\' order by a limit 2', NextToken, ConsistentRead: true,
    });
    seen.pages.push(page.Items.map((item) => item.Name));
    NextToken = page.NextToken;
  } while (NextToken);
  await call('putAttributes', { DomainName, ItemName: 'four', Attributes: [pair('a', '\u0000')] });
  const odd = await call('getAttributes', { DomainName, ItemName: 'four', ConsistentRead: true });
  seen.bytes = Array.from(odd.Attributes[0].Value);
  await call('deleteAttributes', { DomainName, ItemName: 'one', Attributes: [{ Name: 'a' }] });
  seen.left = sorted((await call('getAttributes', {
    DomainName, ItemName: 'one', ConsistentRead: true })).Attributes);
  await call('batchDeleteAttributes', {
    DomainName, Items: [{ Name: 'two' }, { Name: 'three', Attributes: [pair('b', '3')] }] });
  const metadata = await call('domainMetadata', { DomainName });
  seen.metadata = [metadata.ItemCount, metadata.AttributeValueCount];
  await call('deleteDomain', { DomainName });
  seen.gone = await refusal(call('domainMetadata', { DomainName }));
  console.log(JSON.stringify(seen));
}

main().catch((error) => { console.error(error); process.exit(1); });
