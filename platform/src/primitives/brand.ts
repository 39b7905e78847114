declare const brand: unique symbol;

/** A nominal type over `T`: equal at run time, different to the compiler. Only the parser of a brand may cast to it. */
export type Brand<T, Name extends string> = T & { readonly [brand]: Name };
