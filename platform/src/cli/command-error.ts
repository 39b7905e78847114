/** A command that cannot do what was asked, with a sentence that says why and what to do. */
export class CommandError extends Error {}
