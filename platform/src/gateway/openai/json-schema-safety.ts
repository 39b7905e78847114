/**
 * Refuses JSON Schemas that would hurt whoever evaluates them: references that leave the document, that recurse or chain without
 * end, and patterns with exponential backtracking. Everything else passes untouched. Iterative: depth cannot exhaust the stack.
 */
import safeRegex from 'safe-regex2';
import { BulkheadError } from '../../errors/bulkhead-error.ts';

const nodesMax = 10_000;
const referencesMax = 256;
const patternCharactersMax = 512;

type SchemaNode = Readonly<Record<string, unknown>>;

/** Throws `invalid_value` naming `param`. */
export function checkJsonSchema(schema: unknown, param: string): void {
  const refuse = (reason: string): never => {
    throw new BulkheadError('invalid_value', reason, { param });
  };
  const references = new Map<SchemaNode, string>();
  const pending: unknown[] = [schema];
  let nodes = 0;
  while (pending.length > 0) {
    const node = pending.pop();
    if (typeof node !== 'object' || node === null) continue;
    if (++nodes > nodesMax) refuse(`a schema may have ${nodesMax} nodes`);
    pending.push(...Object.values(node));
    if (Array.isArray(node)) continue;
    const entry = node as SchemaNode;
    if (typeof entry['pattern'] === 'string') checkPattern(entry['pattern'], refuse);
    if (typeof entry['$ref'] === 'string') references.set(entry, entry['$ref']);
  }
  if (references.size > referencesMax) refuse(`a schema may have ${referencesMax} references; this one has ${references.size}`);
  checkReferences(schema, references, refuse);
}

function checkPattern(pattern: string, refuse: (reason: string) => never): void {
  if (pattern.length > patternCharactersMax) refuse(`a pattern may have ${patternCharactersMax} characters`);
  let safe = false;
  try {
    safe = safeRegex(pattern);
  } catch {
    // Not a regular expression at all.
  }
  if (!safe) refuse('a pattern could need exponential time to match, or is not a regular expression');
}

function checkReferences(root: unknown, references: ReadonlyMap<SchemaNode, string>, refuse: (reason: string) => never): void {
  const edges = new Map<unknown, SchemaNode[]>();
  for (const [node, reference] of references) {
    if (!reference.startsWith('#')) refuse('a $ref may only point inside its own schema');
    const target = resolvePointer(root, reference.slice(1));
    if (target === undefined) refuse('a $ref points to nothing');
    edges.set(node, referencesUnder(target));
  }
  const done = new Set<unknown>();
  for (const start of edges.keys()) assertAcyclic(start, edges, done, refuse);
}

function resolvePointer(root: unknown, pointer: string): unknown {
  if (pointer === '') return root;
  let node: unknown = root;
  for (const step of pointer.split('/').slice(1)) {
    const key = decodeStep(step);
    if (typeof node !== 'object' || node === null || !Object.hasOwn(node, key)) return undefined;
    node = (node as Record<string, unknown>)[key];
  }
  return node;
}

function decodeStep(step: string): string {
  try {
    return decodeURIComponent(step).replaceAll('~1', '/').replaceAll('~0', '~');
  } catch {
    return step;
  }
}

function referencesUnder(target: unknown): SchemaNode[] {
  const found: SchemaNode[] = [];
  const pending: unknown[] = [target];
  while (pending.length > 0) {
    const node = pending.pop();
    if (typeof node !== 'object' || node === null) continue;
    if (!Array.isArray(node) && typeof (node as SchemaNode)['$ref'] === 'string') found.push(node as SchemaNode);
    pending.push(...Object.values(node));
  }
  return found;
}

/** Depth-first with an explicit stack; a node met again on the current path closes a cycle. */
function assertAcyclic(
  start: unknown,
  edges: ReadonlyMap<unknown, SchemaNode[]>,
  done: Set<unknown>,
  refuse: (reason: string) => never,
): void {
  const path = new Set<unknown>();
  const stack: { node: unknown; next: number }[] = [{ node: start, next: 0 }];
  path.add(start);
  while (stack.length > 0) {
    const frame = stack[stack.length - 1] as { node: unknown; next: number };
    const child = edges.get(frame.node)?.[frame.next++];
    if (child === undefined) {
      done.add(frame.node);
      path.delete(frame.node);
      stack.pop();
      continue;
    }
    if (path.has(child)) refuse('a $ref may not lead back to itself');
    if (done.has(child)) continue;
    path.add(child);
    stack.push({ node: child, next: 0 });
  }
}
