import type { LanguageModelV4, LanguageModelV4StreamPart } from '@ai-sdk/provider';
import { expect, test } from 'vitest';
import { rehearse } from './rehearsal.ts';
import type { OpenSdk } from './sdk-models.ts';

type DoStream = LanguageModelV4['doStream'];

const opening =
  (doStream: DoStream): OpenSdk =>
  () => ({ languageModel: () => ({ doStream }) as Partial<LanguageModelV4> as LanguageModelV4 });

const streaming = (start: (controller: ReadableStreamDefaultController<LanguageModelV4StreamPart>) => void): DoStream => {
  return async () => ({ stream: new ReadableStream({ start }) });
};

const dropping = streaming((controller) => {
  controller.enqueue({ type: 'stream-start', warnings: [{ type: 'unsupported', feature: 'topP' }] });
  controller.close();
});
const unsupportedError = Object.assign(new Error('x'), { name: 'AI_UnsupportedFunctionalityError', functionality: 'tools' });

test.each<[string, DoStream, object]>([
  ['that warns', dropping, { code: 'unsupported_parameter', param: 'top_p' }],
  ['that throws what it cannot say', () => Promise.reject(unsupportedError), { code: 'unsupported_parameter' }],
])('a package %s is not asked', async (_name, doStream, refused) => {
  await expect(rehearse(opening(doStream), 'm', { prompt: [] })).rejects.toMatchObject(refused);
});

test.each<[string, DoStream]>([
  ['throws', () => Promise.reject(new Error('no body'))],
  ['breaks off', streaming((controller) => controller.error(new Error('no body')))],
  ['says nothing', streaming((controller) => controller.close())],
])('a package that at an empty stream %s is asked', async (_name, doStream) => {
  await expect(rehearse(opening(doStream), 'm', { prompt: [] })).resolves.toBeUndefined();
});
