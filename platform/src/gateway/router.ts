/** Finds the route of a path. Literal segments win over parameters, from the left; a parameter is one segment that is not empty. */
import { assert } from '../primitives/assert.ts';
import type { Route } from './route.ts';

export interface Match {
  readonly route: Route;
  readonly params: Readonly<Record<string, string>>;
}

export interface Router {
  /** `path` has passed `checkTarget`: its percent-encodings are well-formed. An encoded slash separates nothing. */
  match(method: string, path: string): Match | undefined;
  /** Methods that have a route at this path. */
  methodsOf(path: string): readonly string[];
}

/** Asserts that paths are made of literal and `:name` segments and that no two routes take the same requests. */
export function createRouter(routes: readonly Route[]): Router {
  const literal = new Map<string, Route>();
  const patterns: Pattern[] = [];
  const taken = new Set<string>();
  for (const route of routes) {
    const pattern = patternOf(route);
    const shape = `${route.method} ${pattern.segments.map((segment) => (segment.startsWith(':') ? ':' : segment)).join('/')}`;
    assert(!taken.has(shape), `two routes take ${shape}`);
    taken.add(shape);
    if (pattern.hasParams) patterns.push(pattern);
    else literal.set(`${route.method} ${route.path}`, route);
  }
  patterns.sort(literalsFirst);
  const match = (method: string, path: string): Match | undefined => {
    const route = literal.get(`${method} ${path}`);
    return route === undefined ? matchPattern(patterns, method, path.split('/')) : { route, params: noParams };
  };
  const methods = [...new Set(routes.map((route) => route.method))];
  return { match, methodsOf: (path) => methods.filter((method) => match(method, path) !== undefined) };
}

interface Pattern {
  readonly route: Route;
  /** The path split at its slashes, the empty segment before the first included. */
  readonly segments: readonly string[];
  readonly hasParams: boolean;
}

const noParams: Match['params'] = Object.freeze({});
const segmentPattern = /^(?::[a-zA-Z]+|[a-zA-Z0-9._-]+)$/;

function patternOf(route: Route): Pattern {
  const segments = route.path.split('/');
  const isWhole = segments[0] === '' && segments.slice(1).every((segment) => segmentPattern.test(segment));
  assert(isWhole || route.path === '/', `${route.path} is no path of literal and :name segments`);
  return { route, segments, hasParams: route.path.includes('/:') };
}

/** A literal sorts before a parameter at the first place where two patterns differ. */
function literalsFirst(left: Pattern, right: Pattern): number {
  const shape = ({ segments }: Pattern) => segments.map((segment) => (segment.startsWith(':') ? '~' : `!${segment}`)).join('/');
  return shape(left) < shape(right) ? -1 : 1;
}

function matchPattern(patterns: readonly Pattern[], method: string, path: readonly string[]): Match | undefined {
  for (const { route, segments } of patterns) {
    if (route.method !== method || segments.length !== path.length) continue;
    if (segments.every((segment, index) => (segment.startsWith(':') ? path[index] !== '' : path[index] === segment))) {
      return { route, params: paramsOf(segments, path) };
    }
  }
  return undefined;
}

function paramsOf(segments: readonly string[], path: readonly string[]): Readonly<Record<string, string>> {
  const params: Record<string, string> = {};
  segments.forEach((segment, index) => {
    if (segment.startsWith(':')) params[segment.slice(1)] = decodeURIComponent(path[index] ?? '');
  });
  return params;
}
