// @slack/web-api as a user writes it; only slackApiUrl and the token come from outside.
import { WebClient } from "@slack/web-api";

const client = new WebClient(process.env.E2E_TOKEN, {
  slackApiUrl: process.env.E2E_BASE_URL,
  retryConfig: { retries: 0 },
});
const who = await client.auth.test();
const channels = await client.conversations.list({ limit: 10 });
const posted = await client.chat.postMessage({ channel: "C0123456789", text: "from Node" });
console.log(JSON.stringify({ ok: who.ok, listed: channels.ok, posted: posted.ok }));
