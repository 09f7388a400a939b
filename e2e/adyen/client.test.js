// The official client of Adyen's Management API against the gateway. The script
// "run" beside this file starts the gateway, and says in the environment where it
// is and who has which key: what "caddy api-keys issue --json" printed.
import assert from "node:assert/strict";
import { test } from "node:test";

import adyen from "@adyen/api-library";

const { Client, Config, EnvironmentEnum, HttpClientException, HttpURLConnectionClient, ManagementAPI } = adyen;

const origin = process.env.ORIGIN;
const holder = (json) => {
	const { credential, key } = JSON.parse(json);
	return { account: credential.account_id, credential: credential.id, key: key.secret };
};
const caller = holder(process.env.CALLER); // has the role
const shop = holder(process.env.SHOP); // of the same account, without it
const stranger = holder(process.env.STRANGER); // of another account

// The client has the vendor's addresses built in, and takes an HTTP client of
// one's own for everything else. This one is the library's but for the address.
class Gateway extends HttpURLConnectionClient {
	request(endpoint, ...rest) {
		const { pathname, search } = new URL(endpoint);
		return super.request(origin + pathname + search, ...rest);
	}
}

const management = (apiKey) =>
	new ManagementAPI(new Client(new Config({ apiKey, environment: EnvironmentEnum.TEST }), new Gateway()));

const company = (apiKey, target, options) =>
	management(apiKey).APIKeyCompanyLevelApi.generateNewApiKey(target.account, target.credential, options);
const merchant = (apiKey, target, options) =>
	management(apiKey).APIKeyMerchantLevelApi.generateNewApiKey(target.account, target.credential, options);

// opens calls a route of the backend.
async function opens(apiKey) {
	const found = await management(apiKey).AccountCompanyLevelApi.getCompanyAccount("any");
	return found.id;
}

// refused is the error with which a call ends, as the client parsed it.
async function refused(call, status, title) {
	const err = await call.then(() => assert.fail("the call succeeds"), (err) => err);
	assert.ok(err instanceof HttpClientException, String(err));
	assert.equal(err.statusCode, status);
	assert.equal(err.errorCode, `00_${status}`);
	assert.match(err.responseHeaders["content-type"], /^application\/problem\+json/);
	const { type, instance, requestId, ...rest } = err.apiError;
	assert.equal(type, "https://docs.adyen.com/errors/" + title.toLowerCase().replace(" ", "-"));
	assert.equal(instance, "urn:uuid:" + requestId);
	assert.equal(rest.title, title);
	assert.equal(rest.status, status);
	assert.deepEqual(JSON.parse(err.responseBody), err.apiError);
	return err.apiError;
}

for (const [name, generate] of Object.entries({ company, merchant })) {
	test(`${name}: a new key is generated, and the old one works on`, async () => {
		const { apiKey } = await generate(caller.key, shop);
		assert.notEqual(apiKey, shop.key);
		for (const key of [apiKey, shop.key, caller.key]) {
			assert.equal(await opens(key), shop.account);
		}
	});

	test(`${name}: a repetition under an idempotency key is answered with the same key`, async () => {
		const idempotencyKey = `rotation-${name}`;
		const first = await generate(caller.key, shop, { idempotencyKey });
		const again = await generate(caller.key, shop, { idempotencyKey });
		const other = await generate(caller.key, shop, { idempotencyKey: idempotencyKey + "-2" });
		assert.equal(again.apiKey, first.apiKey);
		assert.notEqual(other.apiKey, first.apiKey);
		assert.equal(await opens(first.apiKey), shop.account);
	});

	test(`${name}: 401 without a key that is one`, async () => {
		const err = await refused(generate("unknown", shop), 401, "Unauthorized");
		assert.equal(err.detail, "The API key is not valid.");
		assert.equal(err.invalidFields, undefined);
	});

	test(`${name}: 403 without the role, and for what is another's or is not there`, async () => {
		await refused(generate(shop.key, shop), 403, "Forbidden");
		const anothers = await refused(generate(caller.key, stranger), 403, "Forbidden");
		const nobodys = await refused(generate(caller.key, { account: caller.account, credential: "none" }), 403, "Forbidden");
		assert.equal(anothers.detail, nobodys.detail);
	});

	test(`${name}: 422 for an idempotency key of another request`, async () => {
		const idempotencyKey = `other-${name}`;
		await generate(caller.key, caller, { idempotencyKey });
		const err = await refused(generate(caller.key, shop, { idempotencyKey }), 422, "Unprocessable Entity");
		assert.equal(err.invalidFields.length, 1);
		assert.equal(err.invalidFields[0].name, "Idempotency-Key");
	});

	test(`${name}: 400 for an idempotency key that is too long`, async () => {
		const err = await refused(generate(caller.key, shop, { idempotencyKey: "x".repeat(65) }), 400, "Bad Request");
		assert.equal(err.invalidFields[0].name, "Idempotency-Key");
	});
}

test("a route of the backend refuses in the same manner", async () => {
	await refused(opens("unknown"), 401, "Unauthorized");
	await refused(opens(undefined), 401, "Unauthorized");
});
