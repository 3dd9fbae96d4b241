import type { GptTable } from './table.ts'

/**
 * The whole table as input of sfdisk(8): every number, start, size and GUID is given, so that the result does not
 * depend on sfdisk's own choices and may be written twice.
 */
export function sfdiskScript(table: GptTable): string {
  const lines = [
    'label: gpt',
    `label-id: ${table.diskGuid}`,
    'unit: sectors',
    `first-lba: ${table.firstUsableLba}`,
    `last-lba: ${table.lastUsableLba}`,
    '',
  ]
  for (const partition of table.partitions) {
    const { number, startLba, endLba, typeGuid, guid, label, attributes } = partition
    const fields = [
      `start=${startLba}`,
      `size=${endLba - startLba + 1}`,
      `type=${typeGuid}`,
      `uuid=${guid}`,
      ...(label === '' ? [] : [`name="${escaped(label)}"`]),
      ...(attributes === 0n ? [] : [`attrs="${attributeNames(attributes)}"`]),
    ]
    lines.push(`${number} : ${fields.join(', ')}`)
  }
  return lines.join('\n') + '\n'
}

/** sfdisk ends a quoted name at the quote and reads \xNN within it. */
function escaped(label: string): string {
  return label.replace(
    /["\\\n\r]/g,
    (character) => `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`,
  )
}

/** Attribute bits by the names sfdisk knows: 0 to 2 by name, 48 to 63 as GUID:N. */
function attributeNames(attributes: bigint): string {
  const names = ['RequiredPartition', 'NoBlockIOProtocol', 'LegacyBIOSBootable']
  const found: string[] = []
  for (let bit = 0; bit < 64; bit++) {
    if ((attributes >> BigInt(bit)) & 1n) found.push(names[bit] ?? `GUID:${bit}`)
  }
  return found.join(' ')
}
