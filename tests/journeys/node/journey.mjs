// OpenAI's official Node client against a gateway, with nothing changed but the address.
// journey.mjs URL KEY MODEL prints the client's version when every step held.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { createReadStream, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import OpenAI, { AzureOpenAI, toFile } from "openai";

const [url, key, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL: url, apiKey: key, maxRetries: 0 });
const endpoint = "/v1/chat/completions";
const FINAL = new Set(["completed", "failed", "expired", "cancelled"]);

function jsonl(count) {
  const line = (number) => ({
    custom_id: `row-${number}`,
    method: "POST",
    url: endpoint,
    body: { model, messages: [{ role: "user", content: `Sag ${number} – ö 漢` }] },
  });
  return Array.from({ length: count }, (_, number) => JSON.stringify(line(number)) + "\n").join("");
}

async function all(pages) {
  const found = [];
  for await (const one of pages) found.push(one);
  return found;
}

async function finished(made, with_ = client) {
  for (const deadline = Date.now() + 40_000; Date.now() < deadline; ) {
    const batch = await with_.batches.retrieve(made.id);
    if (FINAL.has(batch.status)) return batch;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`${made.id} does not end`);
}

async function refused(call, status, code, param) {
  const error = await call().then(() => assert.fail("not refused"), (reason) => reason);
  assert.deepEqual([error.status, error.code, error.param], [status, code, param], error.message);
  assert.equal(error.type, "invalid_request_error");
  assert.ok(error.requestID);
}

async function files() {
  const content = jsonl(3);
  const folder = mkdtempSync(join(tmpdir(), "journey-"));
  const path = join(folder, "größe 1.jsonl");
  writeFileSync(path, content);
  const made = [
    await client.files.create({ file: createReadStream(path), purpose: "batch" }),
    await client.files.create({ file: await toFile(Buffer.from(content), "b.jsonl"), purpose: "batch" }),
    await client.files.create({
      file: new File([content], "c.jsonl"),
      purpose: "batch",
      expires_after: { anchor: "created_at", seconds: 3600 },
    }),
  ];
  rmSync(folder, { recursive: true });
  assert.deepEqual(made.map((file) => file.filename), ["größe 1.jsonl", "b.jsonl", "c.jsonl"]);
  assert.ok(made.every((file) => file.object === "file" && file.bytes === Buffer.byteLength(content)));
  assert.equal(made[2].expires_at, made[2].created_at + 3600);
  const ids = made.map((file) => file.id);
  const listed = await all(client.files.list({ limit: 1, purpose: "batch", order: "asc" }));
  assert.deepEqual(listed.map((file) => file.id), ids);
  assert.equal((await client.files.retrieve(ids[0])).filename, "größe 1.jsonl");
  assert.equal(await (await client.files.content(ids[0])).text(), content);
  assert.deepEqual(await client.files.delete(ids[0]), { id: ids[0], object: "file", deleted: true });
  await refused(() => client.files.retrieve(ids[0]), 404, null, "id");
}

async function batches() {
  const file = await client.files.create({ file: await toFile(Buffer.from(jsonl(5)), "in.jsonl"), purpose: "batch" });
  const wanted = { input_file_id: file.id, endpoint, completion_window: "24h" };
  const made = await client.batches.create({ ...wanted, metadata: { job: "a" } });
  assert.equal(made.status, "validating");
  const doomed = await client.batches.cancel((await client.batches.create(wanted)).id);
  assert.ok(["cancelling", "cancelled"].includes(doomed.status));
  assert.deepEqual((await all(client.batches.list({ limit: 1 }))).map((one) => one.id), [doomed.id, made.id]);
  const batch = await finished(made);
  assert.equal(batch.status, "completed");
  assert.deepEqual(batch.request_counts, { total: 5, completed: 5, failed: 0 });
  assert.deepEqual(batch.metadata, { job: "a" });
  const lines = (await (await client.files.content(batch.output_file_id)).text()).trim().split("\n").map(JSON.parse);
  assert.deepEqual(lines.map((line) => line.custom_id), [0, 1, 2, 3, 4].map((number) => `row-${number}`));
  const tokens = lines.reduce((sum, line) => sum + line.response.body.usage.total_tokens, 0);
  assert.equal(batch.usage.total_tokens, tokens);
  await refused(() => client.batches.cancel(batch.id), 409, null, null);
  const failed = await finished(await client.batches.create({ ...wanted, endpoint: "/v1/embeddings" }));
  assert.deepEqual(failed.errors.data.map(({ line, code }) => [line, code]), [1, 2, 3, 4, 5].map((n) => [n, "invalid_url"]));
  await finished(doomed);
}

async function refusals() {
  const wanted = { input_file_id: "file-x", endpoint, completion_window: "24h" };
  await refused(() => client.batches.retrieve("batch_none"), 404, null, "batch_id");
  await refused(() => client.batches.create({ ...wanted, endpoint: "/x" }), 400, "invalid_value", "endpoint");
  await refused(() => client.batches.create({ ...wanted, metadata: { a: 1 } }), 400, "invalid_type", "metadata.a");
  await refused(() => client.batches.list({ limit: 101 }), 400, "integer_above_max_value", "limit");
  const stranger = new OpenAI({ baseURL: url, apiKey: "sk-wrong", maxRetries: 0 });
  await refused(() => stranger.batches.list(), 401, "invalid_api_key", null);
}

async function uploads() {
  const content = Buffer.from(jsonl(300));
  const described = { bytes: content.length, filename: "p.jsonl", mime_type: "application/jsonl", purpose: "batch" };
  const upload = await client.uploads.create(described);
  assert.equal(upload.status, "pending");
  const pieces = [];
  for (let at = 0; at < content.length; at += 20_001) pieces.push(content.subarray(at, at + 20_001));
  const parts = await Promise.all(
    pieces.map(async (piece) => client.uploads.parts.create(upload.id, { data: await toFile(piece, "part") })),
  );
  const md5 = createHash("md5").update(content).digest("hex");
  const done = await client.uploads.complete(upload.id, { part_ids: parts.map((part) => part.id), md5 });
  assert.equal(done.status, "completed");
  assert.equal(await (await client.files.content(done.file.id)).text(), content.toString());
  assert.equal((await client.uploads.cancel((await client.uploads.create(described)).id)).status, "cancelled");
}

async function azure() {
  const root = url.replace(/\/v1$/, "");
  const there = new AzureOpenAI({ endpoint: root, apiKey: key, apiVersion: "2025-04-01-preview", maxRetries: 0 });
  const file = await there.files.create({ file: await toFile(Buffer.from(jsonl(2)), "in.jsonl"), purpose: "batch" });
  const made = await there.batches.create({ input_file_id: file.id, endpoint, completion_window: "24h" });
  const batch = await finished(made, there);
  const text = await (await there.files.content(batch.output_file_id)).text();
  assert.equal(text.trim().split("\n").length, 2);
}

for (const step of [files, batches, refusals, uploads, azure]) await step();
console.log(JSON.parse(readFileSync(new URL("node_modules/openai/package.json", import.meta.url))).version);
