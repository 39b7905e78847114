/** Shows each step of the start while it runs and how long it took. */
export class StartProgress {
  readonly #out: NodeJS.WriteStream | undefined;
  readonly #startedAt = performance.now();
  #running: { readonly name: string; readonly startedAt: number } | undefined;

  constructor(out: NodeJS.WriteStream | undefined) {
    this.#out = out;
  }

  step(name: string): void {
    this.#finish();
    this.#running = { name, startedAt: performance.now() };
    this.#out?.write(`  ${name} … `);
  }

  done(): void {
    this.#finish();
    this.#out?.write(`  ready in ${seconds(this.#startedAt)}\n`);
  }

  #finish(): void {
    if (this.#running === undefined) return;
    this.#out?.write(`${seconds(this.#running.startedAt)}\n`);
    this.#running = undefined;
  }
}

function seconds(startedAt: number): string {
  return `${((performance.now() - startedAt) / 1_000).toFixed(1)} s`;
}
