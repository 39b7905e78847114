import { describe, expect, test } from 'vitest';
import { contextModelOf, withContext } from '../../bench/retrieval/contextual-chunks.ts';
import { answer, ScriptedUpstream } from '../support/scripted-upstream.ts';

const set = {
  name: 'codebase',
  language: 'english',
  documents: Array.from({ length: 30 }, (_, index) => `paragraph number ${index}`),
  questions: [{ text: 'which paragraph?', relevant: [3] }],
} as const;
const never = new AbortController().signal;

function completion(content: string) {
  return answer(200, {
    id: 'chatcmpl-1',
    object: 'chat.completion',
    created: 1,
    model: 'm',
    choices: [{ index: 0, finish_reason: 'stop', message: { role: 'assistant', content } }],
  });
}

describe('contextual chunks', () => {
  test('are preceded by what the model says of each, asked with its neighbours and no others', async () => {
    await using upstream = await ScriptedUpstream.start((response, request) => {
      const [message] = request.body['messages'] as readonly { readonly content: string }[];
      const chunk = /<chunk>\n(.*)\n<\/chunk>/.exec(message?.content ?? '')?.[1];
      return completion(`About ${chunk}.`)(response, request);
    });
    const described = await withContext(set, { baseUrl: upstream.baseUrl, model: 'm', apiKey: 'k' }, never);
    expect(described.documents).toEqual(set.documents.map((text) => `About ${text}.\n\n${text}`));
    expect(described.questions).toBe(set.questions);
    const asked = upstream.received
      .map(({ body }) => JSON.stringify(body['messages']))
      .find((text) => text.includes('<chunk>\\nparagraph number 15\\n'));
    expect(asked).toContain('paragraph number 9');
    expect(asked).toContain('paragraph number 21');
    expect(asked).not.toContain('paragraph number 8\\n');
    expect(asked).not.toContain('paragraph number 22');
  });

  test('are not measured with a model that says nothing', async () => {
    await using upstream = await ScriptedUpstream.start(completion('  '));
    await expect(withContext(set, { baseUrl: upstream.baseUrl, model: 'm', apiKey: 'k' }, never)).rejects.toThrow(
      'said nothing about chunk',
    );
  });

  test('need a model and its address, both or neither', () => {
    expect(contextModelOf(['--full'], undefined)).toBeUndefined();
    expect(contextModelOf(['--context-url=http://127.0.0.1:1/v1', '--context-model=m'], 'k')).toEqual({
      baseUrl: 'http://127.0.0.1:1/v1',
      model: 'm',
      apiKey: 'k',
    });
    expect(() => contextModelOf(['--context-model=m'], 'k')).toThrow('go together');
  });
});
