/** Sends webhooks over HTTP. What an endpoint answers besides its status is not read. */
import { request } from 'undici';
import type { SendWebhook } from '../../metering/webhooks.ts';

const answerWithinMs = 10_000;

export const sendWebhook: SendWebhook = async ({ url }, { headers, body }, signal) => {
  try {
    const answer = await request(url, {
      method: 'POST',
      headers: { ...headers, 'content-type': 'application/json', 'user-agent': 'Bulkhead-Webhooks' },
      body,
      signal: AbortSignal.any([signal, AbortSignal.timeout(answerWithinMs)]),
      headersTimeout: answerWithinMs,
      bodyTimeout: answerWithinMs,
    });
    await answer.body.dump({ limit: 16_384 });
    return answer.statusCode;
  } catch {
    return undefined;
  }
};
