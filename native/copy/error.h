// The fault of a copy, and its file: TypeScript words the message.
#pragma once

#include <cstdint>
#include <string>

#include "base/error.h"
#include "io/queue.h"

namespace qb {

// Shared with lib/copy/failure.ts, DO NOT CHANGE one without the other.
enum class Failure : uint8_t {
  kOther = 0,         // see errno and context
  kRead = 1,          // a source file could not be read
  kShort = 2,         // a source file ends before a byte that the plan names
  kDecode = 3,        // a compressed cluster does not expand to a cluster
  kWrite = 4,         // the target could not be written
  kCancelled = 5,     // cancel() was called
  kServer = 6,        // a source's NBD server can't be reached any more; context says how
  kTargetServer = 7,  // the target's server
};

class CopyError : public Error {
 public:
  CopyError(Failure failure, int errnum, const std::string& context, uint32_t file = 0,
            uint64_t offset = 0)
      : Error(errnum, context), failure_(failure), file_(file), offset_(offset) {}

  Failure failure() const { return failure_; }
  uint32_t file() const { return file_; }      // source files: index
  uint64_t offset() const { return offset_; }  // in the file, bytes

 private:
  Failure failure_;
  uint32_t file_;
  uint64_t offset_;
};

// The error of a request to the target.
inline CopyError write_error(const Transfer& transfer) {
  if (transfer.op == Op::kSync) return {Failure::kWrite, transfer.error, "sync"};
  uint64_t at = transfer.offset + transfer.done;
  return {Failure::kWrite, transfer.error, "write at " + std::to_string(at), 0, at};
}

// Runs work on the target, and reports its failure as one of the target.
template <typename Action>
decltype(auto) at_target(const Action& action) {
  try {
    return action();
  } catch (const Error& error) {
    throw CopyError(Failure::kWrite, error.errnum(), error.context());
  }
}

}  // namespace qb
