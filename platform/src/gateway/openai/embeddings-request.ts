/** What `POST /v1/embeddings` refuses before anything is spent. */
import { z } from 'zod';

const inputsMax = 2_048;
const tokens = z.array(z.number().int().min(0).max(1_000_000)).min(1).max(300_000);

export const embeddingsRequestSchema = z.looseObject({
  model: z.string().min(1).max(256),
  input: z.union([z.string().min(1), z.array(z.string().min(1)).min(1).max(inputsMax), tokens, z.array(tokens).min(1).max(inputsMax)]),
  encoding_format: z.enum(['float', 'base64']).optional(),
  dimensions: z.number().int().min(1).max(10_000).optional(),
  user: z.string().max(512).optional(),
});
