import { open } from '../../files.ts'

/** Writes a file that is not there yet and that only this user reads. */
export async function writeNew(path: string, text: string): Promise<void> {
  const file = await open(path, 'wx', 0o600)
  try {
    await file.writeFile(text)
  } finally {
    await file.close()
  }
}
