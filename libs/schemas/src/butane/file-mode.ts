/** Whether a mode was probably meant in octal: unreasonable as it is, reasonable if its digits are read that way. */
export function looksDecimal(mode: number, directory: boolean): boolean {
  if (mode < 0 || mode > 7777) return false
  const digits = String(mode)
  if (/[89]/.test(digits)) return false
  return !isTypical(mode, directory) && isTypical(Number.parseInt(digits, 8), directory)
}

/** Modes that surprise nobody: more for the owner than for the group, and for the group than for all others. */
function isTypical(mode: number, directory: boolean): boolean {
  if (mode === 0) return true
  let earlier = 0
  for (const shift of [0, 3, 6]) {
    const bits = (mode >> shift) & 7
    // Who is closer has at least what others have.
    if ((earlier & ~bits) !== 0) return false
    // Executable for one, readable but not executable for the others.
    if ((bits & 1) !== 0 && (earlier & 4) !== 0 && (earlier & 1) === 0) return false
    if ((bits & 3) !== 0 && (bits & 4) === 0) return false
    earlier |= bits
  }
  const writable = (earlier & 2) !== 0
  const executable = (earlier & 1) !== 0
  if ((earlier & 4) === 0) return false
  if (directory) {
    return executable && (mode & 0o4000) === 0 && ((mode & 0o3000) === 0 || writable)
  }
  if ((mode & 0o6000) !== 0 && (!executable || (mode & 2) !== 0)) return false
  return (mode & 0o1000) === 0
}
