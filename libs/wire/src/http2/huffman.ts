/**
 * The Huffman code of HPACK (RFC 7541, section 5.2 and appendix B), decoded by a state machine that takes four bits a step. Nothing we
 * send is worth encoding with it.
 */

/** Code lengths in bits and the symbols that have them; 256 is the end-of-string symbol. The code is canonical. */
const lengths: [number, string][] = [
  [5, '48-50 97 99 101 105 111 115-116'],
  [6, '32 37 45-47 51-57 61 65 95 98 100 102-104 108-110 112 114 117'],
  [7, '58 66-87 89 106-107 113 118-122'],
  [8, '38 42 44 59 88 90'],
  [10, '33-34 40-41 63'],
  [11, '39 43 124'],
  [12, '35 62'],
  [13, '0 36 64 91 93 126'],
  [14, '94 125'],
  [15, '60 96 123'],
  [19, '92 195 208'],
  [20, '128 130-131 162 184 194 224 226'],
  [21, '153 161 167 172 176-177 179 209 216-217 227 229-230'],
  [22, '129 132-134 136 146 154 156 160 163-164 169-170 173 178 181 185-187 189-190 196 198 228 232-233'],
  [23, '1 135 137-141 143 147 149-152 155 157-158 165-166 168 174-175 180 182-183 188 191 197 231 239'],
  [24, '9 142 144-145 148 159 171 206 215 225 236-237'],
  [25, '199 207 234-235'],
  [26, '192-193 200-202 205 210 213 218-219 238 240 242-243 255'],
  [27, '203-204 211-212 214 221-223 241 244-248 250-254'],
  [28, '2-8 11-12 14-21 23-31 127 220 249'],
  [30, '10 13 22 256'],
]

const endOfString = 256
const nothing = -1
const invalid = 0xffff

/** Inner nodes of the code tree are the states; two children each, leaves are stored as -1 - symbol. */
function buildTree(): Int32Array {
  const tree = new Int32Array(2 * 256)
  let nodes = 1
  let code = 0
  let previous = lengths[0]![0]
  for (const [length, runs] of lengths) {
    code <<= length - previous
    previous = length
    for (const run of runs.split(' ')) {
      const [first = 0, last = first] = run.split('-').map(Number)
      for (let symbol = first; symbol <= last; symbol++, code++) {
        let node = 0
        for (let bit = length - 1; bit > 0; bit--) {
          const at = 2 * node + ((code >> bit) & 1)
          if (tree[at] === 0) tree[at] = nodes++
          node = tree[at]!
        }
        tree[2 * node + (code & 1)] = -1 - symbol
      }
    }
  }
  return tree
}

/** Per state and nibble: the next state or `invalid`, and the symbol completed on the way or `nothing`. */
const nextState = new Uint16Array(256 * 16)
const completed = new Int16Array(256 * 16)
/** States in which a string may end: up to seven one-bits of padding since the last symbol. */
const mayEnd = new Uint8Array(256)

function buildMachine(): void {
  const tree = buildTree()
  for (let state = 0; state < 256; state++) {
    for (let nibble = 0; nibble < 16; nibble++) {
      let node = state
      let symbol = nothing
      for (let bit = 3; bit >= 0 && node !== invalid; bit--) {
        const child = tree[2 * node + ((nibble >> bit) & 1)]!
        if (child >= 0) node = child
        else if (-1 - child === endOfString) node = invalid
        else {
          symbol = -1 - child
          node = 0
        }
      }
      nextState[state * 16 + nibble] = node
      completed[state * 16 + nibble] = symbol
    }
  }
  for (let ones = 0, node = 0; ones < 8; ones++) {
    mayEnd[node] = 1
    node = tree[2 * node + 1]!
  }
}
buildMachine()

let scratch = Buffer.allocUnsafe(1024)

/** Decodes `source[start, end)` into a latin-1 string; undefined if it is not valid Huffman code. */
export function decodeHuffman(source: Uint8Array, start: number, end: number): string | undefined {
  // The shortest code has five bits, so eight bytes are thirteen symbols at most.
  const symbolsMax = Math.ceil(((end - start) * 8) / 5)
  if (scratch.length < symbolsMax) scratch = Buffer.allocUnsafe(2 * symbolsMax)
  let state = 0
  let length = 0
  for (let at = start; at < end; at++) {
    const byte = source[at]!
    const high = state * 16 + (byte >> 4)
    state = nextState[high]!
    if (state === invalid) return undefined
    if (completed[high] !== nothing) scratch[length++] = completed[high]!
    const low = state * 16 + (byte & 15)
    state = nextState[low]!
    if (state === invalid) return undefined
    if (completed[low] !== nothing) scratch[length++] = completed[low]!
  }
  return mayEnd[state] === 1 ? scratch.toString('latin1', 0, length) : undefined
}
