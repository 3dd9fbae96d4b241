import { connect, type Socket } from 'node:net'
import { clusterSocketFolder, portSocket } from '@kiln/vm'

const textMax = 64 * 1024

/** What a machine of a cluster writes to one of its virtio-serial ports, from when it is opened. */
export class PortReader {
  text = ''
  readonly #socket: Socket

  private constructor(socket: Socket) {
    this.#socket = socket
    socket.setEncoding('utf8')
    socket.on('error', () => socket.destroy())
    socket.on('data', (chunk: string) => {
      if (this.text.length < textMax) this.text += chunk
    })
  }

  /** Throws while the machine does not run. */
  static open(state: string, machine: string, port: string): Promise<PortReader> {
    const path = portSocket({ socketFolder: clusterSocketFolder(state), name: machine }, port)
    return new Promise((resolve, reject) => {
      const socket = connect(path, () => resolve(new PortReader(socket)))
      socket.once('error', reject)
    })
  }

  close(): void {
    this.#socket.destroy()
  }
}
