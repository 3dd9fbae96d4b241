import { expect, test } from 'vitest'
import { formatDeb822, parseDeb822, parseOneLine, sourcesForSuite } from './apt-sources.ts'

const deb822 = `# a comment
Types: deb deb-src
# another one inside the stanza
URIs: http://mirror.test/debian/
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/archive.gpg

Enabled: no
Types: deb
URIs: http://off.test/debian
Suites: bookworm
Components: main

Types: deb
URIs: https://other.test/packages
Suites: nodistro
Components: main
`

test('a deb822 file gives one source for each suite, without disabled stanzas', () => {
  const found = parseDeb822(deb822)
  expect(found.map(({ uri, suite }) => `${uri} ${suite}`)).toEqual([
    'http://mirror.test/debian/ bookworm',
    'http://mirror.test/debian/ bookworm-updates',
    'https://other.test/packages nodistro',
  ])
  expect(found[0]?.options).toEqual({ 'signed-by': '/usr/share/keyrings/archive.gpg' })
})

test('a key inside a deb822 file survives', () => {
  const text =
    'Types: deb\nURIs: http://m.test\nSuites: bookworm\nComponents: main\nSigned-By:\n -----BEGIN\n .\n abc\n'
  expect(formatDeb822(sourcesForSuite(parseDeb822(text), 'bookworm'))).toContain(
    'signed-by: \n -----BEGIN\n .\n abc',
  )
})

test('one-line sources keep their options, and deb-src and comments are ignored', () => {
  const found = parseOneLine(
    'deb [arch=amd64 signed-by=/k.gpg] http://m.test/debian bookworm main contrib # mine\n' +
      'deb-src http://m.test/debian bookworm main\n# deb http://old.test x main\n',
  )
  expect(found).toEqual([
    {
      uri: 'http://m.test/debian',
      suite: 'bookworm',
      components: ['main', 'contrib'],
      options: { arch: 'amd64', 'signed-by': '/k.gpg' },
    },
  ])
})

test('sources of other makers fall away, and those of another release point at ours', () => {
  const host = [
    ...parseDeb822(deb822),
    ...parseOneLine(
      'deb http://m.test/debian trixie main\ndeb http://m.test/security trixie-security main\ndeb http://m.test/debian trixie-backports main',
    ),
  ]
  expect(sourcesForSuite(host, 'bookworm').map(({ uri, suite }) => `${uri} ${suite}`)).toEqual([
    'http://mirror.test/debian bookworm',
    'http://mirror.test/debian bookworm-updates',
    'http://m.test/debian bookworm',
    'http://m.test/security bookworm-security',
  ])
})

test('a host without a Debian source gives none', () => {
  expect(sourcesForSuite(parseOneLine('deb http://cloud.test/apt sdk main'), 'bookworm')).toEqual([])
})
