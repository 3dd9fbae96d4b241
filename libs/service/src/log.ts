import pino from 'pino'

export type Log = {
  debug(fields: object, sentence: string): void
  info(fields: object, sentence: string): void
  warn(fields: object, sentence: string): void
  error(fields: object, sentence: string): void
  child(fields: object): Log
}

/** Structured log of one program: JSON lines on stderr, level from `KILN_LOG_LEVEL` (default info). */
export function createLog(name: string, level: string = process.env['KILN_LOG_LEVEL'] ?? 'info'): Log {
  return pino(
    {
      name,
      level,
      base: { name },
      formatters: { level: (label) => ({ level: label }) },
      serializers: { error: pino.stdSerializers.errWithCause },
    },
    pino.destination({ fd: 2, sync: true }),
  )
}
