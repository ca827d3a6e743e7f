#include "copy/mailbox.h"

#include <utility>

namespace qb {

void CopyMailbox::post(CopyCommand command) {
  {
    std::lock_guard lock(mutex_);
    commands_.push_back(command);
  }
  wake();
}

std::vector<CopyCommand> CopyMailbox::take_commands() {
  std::lock_guard lock(mutex_);
  return std::exchange(commands_, {});
}

void CopyMailbox::report_failed(const Area& area) {
  {
    std::lock_guard lock(mutex_);
    failed_.push_back(area);
  }
  notify();
}

std::vector<Area> CopyMailbox::take_failed() {
  std::lock_guard lock(mutex_);
  return std::exchange(failed_, {});
}

void CopyMailbox::report_synced(uint64_t position) {
  {
    std::lock_guard lock(mutex_);
    synced_ = position;
  }
  notify();
}

std::optional<uint64_t> CopyMailbox::take_synced() {
  std::lock_guard lock(mutex_);
  return std::exchange(synced_, std::nullopt);
}

}  // namespace qb
