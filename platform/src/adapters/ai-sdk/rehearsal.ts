import type { LanguageModelV4CallOptions } from '@ai-sdk/provider';
import { assertNothingDropped } from './answer-values.ts';
import { failureOfSdk } from './sdk-failures.ts';
import type { OpenSdk } from './sdk-models.ts';

type Options = Omit<LanguageModelV4CallOptions, 'abortSignal'>;

/**
 * A package warns of what it drops when it has an answer, and then the answer is paid for. So each call is made to nobody first, whose stream ends at once: the
 * warnings are its first part. Throws `unsupported_parameter`, or what the package says of a request it cannot make. A package that makes nothing of an empty
 * stream cannot be rehearsed; the warnings of its answers are looked at all the same.
 */
export async function rehearse(openSdk: OpenSdk, modelId: string, options: Options): Promise<void> {
  try {
    assertNothingDropped(await warningsOf(openSdk, modelId, options));
  } catch (error) {
    const failure = failureOfSdk(error);
    if (failure.code !== 'upstream_error') throw failure;
  }
}

async function warningsOf(openSdk: OpenSdk, modelId: string, options: Options) {
  // With a key nothing is signed, which takes Amazon's package most of a millisecond.
  const { stream } = await openSdk(nobody, 'nobody').languageModel(modelId).doStream(options);
  const reader = stream.getReader();
  const { value: first } = await reader.read();
  reader.cancel().catch(() => {});
  return first?.type === 'stream-start' ? first.warnings : [];
}

const nobody = async () => new Response(new ReadableStream({ start: (controller) => controller.close() }));
