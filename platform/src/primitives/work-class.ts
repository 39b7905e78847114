/** Somebody waits for `interactive` work; `batch` is what a tenant has done behind its requests. */
export type WorkClass = 'interactive' | 'batch';
