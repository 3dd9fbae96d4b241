import { expect, test } from 'vitest'
import { parseImageReference } from './reference.ts'

const boot = 'http://10.0.2.2:8080/'
const pin = 'a'.repeat(64)

test('every form of reference is understood, with its pin', () => {
  expect(parseImageReference('boot://pods/hello.tar', boot)).toEqual({
    kind: 'url',
    url: 'http://10.0.2.2:8080/assets/pods/hello.tar',
  })
  expect(parseImageReference(`boot://hello.tar@sha256:${pin}`, boot)).toMatchObject({ pin })
  expect(parseImageReference('https://example.org/x.tar', undefined)).toEqual({
    kind: 'url',
    url: 'https://example.org/x.tar',
  })
  expect(parseImageReference('oci:/srv/images:v1', boot)).toEqual({
    kind: 'layout',
    path: '/srv/images',
    tag: 'v1',
  })
  expect(parseImageReference('docker-archive:/srv/x.tar', boot)).toEqual({
    kind: 'archive',
    path: '/srv/x.tar',
  })
})

test.each([
  ['nginx', 'docker.io', 'library/nginx', 'latest'],
  ['docker.io/library/nginx:1.27', 'docker.io', 'library/nginx', '1.27'],
  ['grafana/grafana', 'docker.io', 'grafana/grafana', 'latest'],
  ['docker://quay.io/a/b-c/d_e:v1', 'quay.io', 'a/b-c/d_e', 'v1'],
  ['localhost/x', 'localhost', 'x', 'latest'],
  ['registry:5000/x', 'registry:5000', 'x', 'latest'],
  ['[fd00::1]:5000/x:y', '[fd00::1]:5000', 'x', 'y'],
])('%s is an image of a registry', (text, registry, repository, tag) => {
  expect(parseImageReference(text, boot)).toEqual({ kind: 'registry', registry, repository, tag })
  expect(parseImageReference(`${text}@sha256:${pin}`, boot)).toMatchObject({ repository, pin })
})

test('what cannot be used is refused by its name', () => {
  const code = (text: string, bootUrl: string | undefined = boot): string => {
    try {
      return parseImageReference(text, bootUrl).kind
    } catch (error) {
      return (error as { code: string }).code
    }
  }
  for (const text of [
    '',
    'Upper/case',
    'a//b',
    'registry:5000/',
    'ex_ample.org/a',
    'a:',
    'a@sha256:12',
    'a b',
    'a/../b',
  ])
    expect(code(text), text).toBe('IMAGE_REFERENCE_INVALID')
  expect(code('oci:relative')).toBe('IMAGE_REFERENCE_INVALID')
  expect(code('oci:/a/../b')).toBe('IMAGE_REFERENCE_INVALID')
  expect(code('boot://../secrets')).toBe('IMAGE_REFERENCE_INVALID')
  expect(code('boot:///etc/passwd')).toBe('IMAGE_REFERENCE_INVALID')
  expect(code('boot://x?y')).toBe('IMAGE_REFERENCE_INVALID')
  expect(code('boot://x.tar', '')).toBe('url')
  expect(() => parseImageReference('boot://x.tar', undefined)).toThrow(/no.*boot server|has none/)
})
