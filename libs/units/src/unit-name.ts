/** A unit's name in its parts (systemd.unit(5)): `getty@tty1.service` is prefix getty, instance tty1. */
export type UnitName = { prefix: string; instance: string | undefined; template: boolean; extension: string }

export const unitExtensions = [
  'service',
  'socket',
  'device',
  'mount',
  'automount',
  'swap',
  'target',
  'path',
  'timer',
  'snapshot',
  'slice',
  'scope',
] as const

export function parseUnitName(name: string): UnitName {
  const dot = name.lastIndexOf('.')
  const stem = dot < 0 ? name : name.slice(0, dot)
  const at = stem.indexOf('@')
  const instance = at < 0 ? undefined : stem.slice(at + 1)
  return {
    prefix: at < 0 ? stem : stem.slice(0, at),
    instance: instance === '' ? undefined : instance,
    template: at >= 0 && instance === '',
    extension: dot < 0 ? '' : name.slice(dot + 1),
  }
}

/** The template an instance is made of: `getty@tty1.service` -> `getty@.service`; undefined for other units. */
export function templateOf(name: string): string | undefined {
  const { prefix, instance, extension } = parseUnitName(name)
  return instance === undefined ? undefined : `${prefix}@.${extension}`
}

/** Replaces the specifiers that may stand in `[Install]`: %i %j %n %N %p %%. */
export function expandInstallName(value: string, unit: string): string {
  const { prefix, instance, extension } = parseUnitName(unit)
  const stem = extension === '' ? unit : unit.slice(0, -(extension.length + 1))
  return value.replace(/%([ijnNp%])/g, (_, letter: string) => {
    switch (letter) {
      case 'i':
        return instance ?? ''
      case 'j':
        return prefix.slice(prefix.lastIndexOf('-') + 1)
      case 'n':
        return unit
      case 'N':
        return stem
      case 'p':
        return prefix
      default:
        return '%'
    }
  })
}
