/** One line that says what is being done, written over itself; nothing at all where nobody watches. */
export class StepLine implements Disposable {
  readonly #stream: NodeJS.WriteStream | undefined;
  #shown = '';

  constructor(stream: NodeJS.WriteStream | undefined) {
    this.#stream = stream?.isTTY ? stream : undefined;
  }

  show(step: string): void {
    if (step === this.#shown) return;
    this.#shown = step;
    this.#stream?.write(`\r\x1b[2K  ${step} ...`);
  }

  [Symbol.dispose](): void {
    if (this.#shown !== '') this.#stream?.write('\r\x1b[2K');
  }
}
