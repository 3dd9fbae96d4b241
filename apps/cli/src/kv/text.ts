import { Fault } from '@kiln/service'

const utf8 = new TextDecoder('utf-8', { fatal: true })
const named: Record<string, string> = { '\n': '\\n', '\r': '\\r', '\t': '\\t', '\\': '\\\\' }

/**
 * Bytes as text that can do a terminal no harm and is not ambiguous: what is not UTF-8, or controls the terminal, is written `\xNN`, and a
 * backslash twice.
 */
export function safeText(bytes: Uint8Array): string {
  try {
    return escapeControls(utf8.decode(bytes))
  } catch {
    const byte = (value: number): string =>
      value < 0x80 ? escapeControls(String.fromCharCode(value)) : `\\x${value.toString(16)}`
    return Array.from(bytes, byte).join('')
  }
}

function escapeControls(text: string): string {
  return text.replace(
    /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\\]/g,
    (char) => {
      const code = char.charCodeAt(0)
      return (
        named[char] ??
        (code < 0x80
          ? `\\x${code.toString(16).padStart(2, '0')}`
          : `\\u${code.toString(16).padStart(4, '0')}`)
      )
    },
  )
}

export const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64')

/** An argument as the bytes it stands for. */
export function argumentBytes(text: string, isBase64: boolean): Uint8Array {
  if (!isBase64) return Buffer.from(text)
  const bytes = Buffer.from(text, 'base64')
  if (bytes.toString('base64').replace(/=+$/, '') !== text.replace(/=+$/, ''))
    throw new Fault('USAGE', `${text} is not base64`)
  return bytes
}

/** Ids of leases and members are written in hexadecimal, as etcdctl does. */
export function idOf(text: string, what: string): bigint {
  if (!/^(0x)?[0-9a-fA-F]{1,16}$/.test(text))
    throw new Fault('USAGE', `${text} is not the id of a ${what}, in hexadecimal`)
  return BigInt(text.startsWith('0x') ? text : `0x${text}`)
}

export const hex = (id: bigint): string => id.toString(16)

export function wholeBigint(text: string): bigint {
  if (!/^\d+$/.test(text)) throw new Fault('USAGE', `${text} is not a whole number`)
  return BigInt(text)
}

/** One binary unit. */
export function size(bytes: bigint): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  let amount = Number(bytes)
  let unit = 0
  while (amount >= 1024 && unit < units.length - 1) {
    amount /= 1024
    unit++
  }
  return `${unit === 0 ? amount : amount.toFixed(1)} ${units[unit]}`
}
