import { createHash, createHmac } from 'node:crypto'

export type AwsCredentials = { accessKey: string; secretKey: string; sessionToken?: string | undefined }

/** SHA-256 of an empty body. */
const emptyHash = createHash('sha256').update('').digest('hex')

/** Headers that sign a GET for AWS (Signature Version 4), to go beside those given, which are signed too. */
export function signedGet(
  url: URL,
  at: {
    region: string
    service: string
    credentials: AwsCredentials
    now: Date
    headers?: Record<string, string>
  },
): Record<string, string> {
  const { region, service, credentials, now } = at
  const date = now.toISOString().replace(/[:-]|\.\d+/g, '')
  const day = date.slice(0, 8)
  const own: Record<string, string> = {
    'x-amz-content-sha256': emptyHash,
    'x-amz-date': date,
    ...(credentials.sessionToken ? { 'x-amz-security-token': credentials.sessionToken } : {}),
  }
  const headers = Object.entries({ host: url.host, ...at.headers, ...own })
    .map(([name, value]): [string, string] => [name.toLowerCase(), value.trim()])
    .sort(([one], [other]) => (one < other ? -1 : 1))
  const names = headers.map(([name]) => name).join(';')
  const request = [
    'GET',
    url.pathname,
    canonicalQuery(url),
    ...headers.map(([name, value]) => `${name}:${value}`),
    '',
    names,
    emptyHash,
  ].join('\n')
  const scope = `${day}/${region}/${service}/aws4_request`
  const text = ['AWS4-HMAC-SHA256', date, scope, createHash('sha256').update(request).digest('hex')].join(
    '\n',
  )
  let key: Buffer = Buffer.from(`AWS4${credentials.secretKey}`)
  for (const part of [day, region, service, 'aws4_request']) {
    key = createHmac('sha256', key).update(part).digest()
  }
  const signature = createHmac('sha256', key).update(text).digest('hex')
  const credential = `${credentials.accessKey}/${scope}`
  return {
    ...own,
    Authorization: `AWS4-HMAC-SHA256 Credential=${credential},SignedHeaders=${names},Signature=${signature}`,
  }
}

function canonicalQuery(url: URL): string {
  const encoded = (text: string): string =>
    encodeURIComponent(text).replace(
      /[!'()*]/g,
      (letter) => `%${letter.charCodeAt(0).toString(16).toUpperCase()}`,
    )
  return [...url.searchParams]
    .map(([name, value]) => `${encoded(name)}=${encoded(value)}`)
    .sort()
    .join('&')
}
