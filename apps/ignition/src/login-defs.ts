/** What login.defs(5) of a root says about new accounts. */
export type LoginDefs = {
  uid: IdRange
  gid: IdRange
  systemUid: IdRange
  systemGid: IdRange
  /** Fields of shadow(5) behind the day of the last change: minimum, maximum and warning days. */
  ageing: [string, string, string]
  mailDir: string
}

export type IdRange = { min: number; max: number }

/** Reads login.defs; what it leaves open is as shadow-utils have it, system ids as Fedora and Flatcar number them. */
export function parseLoginDefs(text: string): LoginDefs {
  const values = new Map<string, string>()
  for (const line of text.split('\n')) {
    const [key, value] = line.replace(/#.*/, '').trim().split(/\s+/, 2)
    if (key && value) values.set(key, value)
  }
  const number = (key: string, otherwise: number): number => {
    const value = Number(values.get(key) ?? Number.NaN)
    return Number.isInteger(value) && value >= 0 ? value : otherwise
  }
  const range = (name: string, min: number, max: number): IdRange => ({
    min: number(`${name}_MIN`, min),
    max: number(`${name}_MAX`, max),
  })
  return {
    uid: range('UID', 1000, 60_000),
    gid: range('GID', 1000, 60_000),
    systemUid: range('SYS_UID', 201, 999),
    systemGid: range('SYS_GID', 201, 999),
    ageing: [
      values.get('PASS_MIN_DAYS') ?? '',
      values.get('PASS_MAX_DAYS') ?? '',
      values.get('PASS_WARN_AGE') ?? '',
    ],
    mailDir: values.get('MAIL_DIR') ?? '/var/mail',
  }
}
