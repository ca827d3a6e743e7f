// Write-back that fails in the background.
#pragma once

namespace qb::test {

// While it lives, the `nth` call of sync_file_range(2) from now on, counted from 1, fails with
// `errnum`; 0: none. One at a time.
class FailedWriteBack {
 public:
  FailedWriteBack(unsigned nth, int errnum);
  ~FailedWriteBack();
  FailedWriteBack(const FailedWriteBack&) = delete;
  FailedWriteBack& operator=(const FailedWriteBack&) = delete;

  // Whether the call came.
  static bool came();
};

}  // namespace qb::test
