#!/usr/bin/env node
/** bin `bulkhead`: argv -> cli/. */
import { runProgram } from './cli/program.ts';

process.exitCode = await runProgram(process.argv);
