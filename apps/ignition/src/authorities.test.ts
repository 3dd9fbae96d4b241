import { createCa } from '@kiln/pki'
import { expect, test } from 'vitest'
import { certificatesOf } from './authorities.ts'

test('a bundle gives its certificates; a broken one or none is refused', async () => {
  const now = new Date()
  const [one, two] = await Promise.all(['a', 'b'].map((name) => createCa({ name, days: 1, now })))
  const bundle = `# comment\n${one!.certificate}\ntext\n${two!.certificate}`
  expect(certificatesOf(bundle, 'x')).toEqual([one!.certificate.trim(), two!.certificate.trim()])
  const broken = bundle.replace(/(BEGIN CERTIFICATE-----\n)[\w+/]{20}/, '$1AAAAAAAAAAAAAAAAAAAA')
  expect(() => certificatesOf(broken, 'x')).toThrow(/block 1 .* from x/)
  expect(() => certificatesOf('nothing', 'x')).toThrow(/no certificate authority in x/)
})
