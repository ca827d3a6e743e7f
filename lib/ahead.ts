/**
 * Starts work ahead of its use, and yields the results in order.
 * @param starts each begins one piece of work
 * @param most pieces that are under way or wait to be taken
 * @throws the first failure, in its turn
 */
export async function* inOrderAhead<T>(
  starts: AsyncIterable<() => Promise<T>> | Iterable<() => Promise<T>>,
  most: number,
): AsyncGenerator<T> {
  const ahead: Promise<T>[] = []
  for await (const start of starts) {
    const result = start()
    // It may never be awaited.
    result.catch(() => {})
    ahead.push(result)
    if (ahead.length >= most) yield await (ahead.shift() as Promise<T>)
  }
  for (const result of ahead) yield await result
}
