/** Status and headers of a provider's answer. */
export interface UpstreamHead {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>;
}
