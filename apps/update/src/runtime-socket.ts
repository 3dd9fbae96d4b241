import { request } from 'node:http'

const timeoutMs = 10_000
const answerBytesMax = 16 * 1024 * 1024

/** One request to kiln-runtime's socket; answers the JSON, throws for anything but 200. */
export function askRuntime(
  socketPath: string,
  method: 'GET' | 'POST',
  path: string,
  body?: object,
): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const call = request({ socketPath, path, method, timeout: timeoutMs }, (response) => {
      const chunks: Buffer[] = []
      let length = 0
      response.on('data', (chunk: Buffer) => {
        length += chunk.length
        if (length > answerBytesMax) call.destroy(new Error(`more than ${answerBytesMax} bytes`))
        else chunks.push(chunk)
      })
      response.on('end', () => {
        const text = Buffer.concat(chunks).toString('utf8')
        if (response.statusCode !== 200)
          return reject(new Error(`answered with ${response.statusCode}: ${text.slice(0, 300)}`))
        try {
          resolve(JSON.parse(text))
        } catch (error) {
          reject(error)
        }
      })
      response.on('error', reject)
    })
    call.on('timeout', () => call.destroy(new Error('no answer in time')))
    call.on('error', reject)
    call.end(body && JSON.stringify(body))
  })
}
