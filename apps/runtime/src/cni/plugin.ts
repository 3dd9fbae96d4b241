import { spawn } from 'node:child_process'
import { constants } from 'node:fs'
import { access } from 'node:fs/promises'
import { join } from 'node:path'
import { describeError, Fault } from '@kiln/service'
import * as z from 'zod'

/** What plug-ins are told by their environment (CNI 1.0, section 2). */
export type PluginCall = {
  command: 'ADD' | 'CHECK' | 'DEL' | 'VERSION'
  containerId?: string
  /** Empty where the namespace is gone. */
  netns?: string
  interfaceName?: string
  args?: string
}

export type PluginRunner = {
  /** Runs one plug-in with a configuration on its standard input; answers what it printed. */
  run(type: string, call: PluginCall, config: object): Promise<unknown>
}

const outputBytesMax = 1 << 20

const PluginError = z.looseObject({ code: z.number(), msg: z.string(), details: z.string().optional() })

/**
 * Plug-ins of a search path. One that takes longer than `timeoutMs` is killed with what it started. `enter` goes before the
 * command line, such as `nsenter --net=...`.
 */
export function openPlugins(at: {
  path: string
  timeoutMs: number
  enter?: readonly string[]
}): PluginRunner {
  const folders = at.path.split(':').filter((folder) => folder.startsWith('/'))
  const find = async (type: string): Promise<string> => {
    for (const folder of folders) {
      const file = join(folder, type)
      if (
        await access(file, constants.X_OK).then(
          () => true,
          () => false,
        )
      )
        return file
    }
    throw new Fault('CNI_PLUGIN_MISSING', `there is no plug-in ${type} in ${folders.join(' or ')}`, {
      remedy: 'install containernetworking-plugins, or set cniPath',
    })
  }
  return {
    run: async (type, call, config) => {
      const [command, ...args] = [...(at.enter ?? []), await find(type)]
      const env = {
        PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
        CNI_PATH: folders.join(':'),
        CNI_COMMAND: call.command,
        CNI_CONTAINERID: call.containerId ?? '',
        CNI_NETNS: call.netns ?? '',
        CNI_IFNAME: call.interfaceName ?? '',
        CNI_ARGS: call.args ?? '',
      }
      const what = `plug-in ${type}, ${call.command}`
      const ended = await capture({
        command: command!,
        args,
        env,
        input: JSON.stringify(config),
        timeoutMs: at.timeoutMs,
        what,
      })
      return readAnswer(what, ended)
    },
  }
}

type Ended = { code: number | null; signal: string | null; stdout: string; stderr: string }

/** A plug-in that fails prints its error on standard output (CNI 1.0, section 5). */
function readAnswer(what: string, { code, signal, stdout, stderr }: Ended): unknown {
  let answer: unknown
  let unreadable: unknown
  try {
    answer = stdout.trim() === '' ? undefined : JSON.parse(stdout)
  } catch (error) {
    unreadable = error
  }
  if (code !== 0) {
    const error = PluginError.safeParse(answer)
    const words = error.success
      ? `${error.data.msg}${error.data.details ? `: ${error.data.details}` : ''} (code ${error.data.code})`
      : stderr.trim() || stdout.trim() || `it said nothing and ended with ${signal ?? code}`
    throw new Fault('CNI_PLUGIN_FAILED', `${what}: ${words.slice(0, 1000)}`)
  }
  if (unreadable !== undefined)
    throw new Fault('CNI_ANSWER_INVALID', `${what} answers no JSON`, { cause: unreadable })
  return answer
}

function capture(at: {
  command: string
  args: string[]
  env: Record<string, string>
  input: string
  timeoutMs: number
  what: string
}): Promise<Ended> {
  return new Promise((resolve, reject) => {
    // A group of its own: what a plug-in starts ends with it.
    const child = spawn(at.command, at.args, { env: at.env, cwd: '/', detached: true })
    const chunks = { stdout: [] as Buffer[], stderr: [] as Buffer[] }
    let bytes = 0
    let refusal: Fault | undefined
    const end = (fault: Fault): void => {
      refusal ??= fault
      try {
        if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL')
      } catch {
        // It ended by itself.
      }
      // What left the group may hold the pipes open.
      child.stdout.destroy()
      child.stderr.destroy()
    }
    const timer = setTimeout(
      () => end(new Fault('CNI_PLUGIN_TIMED_OUT', `${at.what} did not end within ${at.timeoutMs} ms`)),
      at.timeoutMs,
    )
    for (const stream of ['stdout', 'stderr'] as const) {
      child[stream].on('data', (chunk: Buffer) => {
        bytes += chunk.length
        if (bytes <= outputBytesMax) chunks[stream].push(chunk)
        else end(new Fault('CNI_ANSWER_INVALID', `${at.what} prints more than ${outputBytesMax} bytes`))
      })
      child[stream].on('error', () => undefined)
    }
    child.on('error', (error) => {
      clearTimeout(timer)
      reject(new Fault('CNI_PLUGIN_FAILED', `${at.what} cannot be run: ${describeError(error)}`))
    })
    child.on('close', (code, signal) => {
      clearTimeout(timer)
      const text = (stream: 'stdout' | 'stderr'): string => Buffer.concat(chunks[stream]).toString('utf8')
      if (refusal) reject(refusal)
      else resolve({ code, signal, stdout: text('stdout'), stderr: text('stderr') })
    })
    child.stdin.on('error', () => undefined)
    child.stdin.end(at.input)
  })
}
