import { describe, expect, it } from 'vitest';
import type { Route } from './route.ts';
import { createRouter } from './router.ts';

function route(method: Route['method'], path: string): Route {
  return { auth: 'none', method, path, body: 'none', spends: false, handle: async () => ({ kind: 'json', status: 200, body: path }) };
}

const router = createRouter([
  route('GET', '/v1/files'),
  route('POST', '/v1/files'),
  route('GET', '/v1/files/:fileId'),
  route('DELETE', '/v1/files/:fileId'),
  route('GET', '/v1/files/:fileId/content'),
  route('GET', '/v1/files/newest'),
  route('GET', '/v1/files/newest/content'),
  route('GET', '/v1/stores/:storeId/files/:fileId'),
]);

describe('createRouter', () => {
  it.each([
    ['GET', '/v1/files', '/v1/files', {}],
    ['GET', '/v1/files/a', '/v1/files/:fileId', { fileId: 'a' }],
    ['GET', '/v1/files/a%20b%3Ac', '/v1/files/:fileId', { fileId: 'a b:c' }],
    ['GET', '/v1/files/openai%2Fgpt-4o', '/v1/files/:fileId', { fileId: 'openai/gpt-4o' }],
    ['GET', '/v1/files/newest', '/v1/files/newest', {}],
    ['DELETE', '/v1/files/newest', '/v1/files/:fileId', { fileId: 'newest' }],
    ['GET', '/v1/files/newest/content', '/v1/files/newest/content', {}],
    ['GET', '/v1/files/other/content', '/v1/files/:fileId/content', { fileId: 'other' }],
    ['GET', '/v1/stores/s/files/f', '/v1/stores/:storeId/files/:fileId', { storeId: 's', fileId: 'f' }],
  ])('%s %s goes to %s', (method, path, pattern, params) => {
    const match = router.match(method, path);
    expect(match?.route.path).toBe(pattern);
    expect(match?.params).toEqual(params);
  });

  it.each([
    '/',
    '/v1',
    '/v1/files/',
    '/v1/files//content',
    '/V1/files',
    '/v1/files/a/content/',
    '/v1/files/a/b',
    '/v1/files/:fileId/x',
    '/constructor',
    '/__proto__',
  ])('nothing is at %s', (path) => {
    expect(router.match('GET', path)).toBeUndefined();
    expect(router.methodsOf(path)).toEqual([]);
  });

  it('knows the methods of a path', () => {
    expect(router.methodsOf('/v1/files')).toEqual(['GET', 'POST']);
    expect(router.methodsOf('/v1/files/a')).toEqual(['GET', 'DELETE']);
  });

  it('refuses a table in which two routes take the same request, or a path that is none', () => {
    expect(() => createRouter([route('GET', '/a/:x'), route('GET', '/a/:y')])).toThrow('two routes take GET /a/:');
    expect(() => createRouter([route('GET', '/a'), route('GET', '/a')])).toThrow('two routes');
    for (const path of ['a', '/a/', '/a//b', '/a/*', '/a(b)', '/:'])
      expect(() => createRouter([route('GET', path)]), path).toThrow('no path');
  });
});
