#include "copy/store.h"

#include <algorithm>
#include <vector>

namespace qb {

Remote* Store::remote() const {
  const auto* remote = std::get_if<std::shared_ptr<Remote>>(&from_);
  return remote ? remote->get() : nullptr;
}

unsigned Store::alignment() const {
  const auto* file = std::get_if<File>(&from_);
  return file ? file->alignment() : remote()->alignment();
}

void Store::submit(Transfer& read, Queue& queue) {
  read.alignment = alignment();
  if (const auto* file = std::get_if<File>(&from_)) {
    read.fd = file->fd();
    queue.submit(&read);
    return;
  }
  read.iov[0].iov_len = std::min(read.iov[0].iov_len, size_ - read.offset);
  remote()->submit(&read);
}

void Store::collect(std::vector<Transfer*>& done) {
  if (Remote* far = remote()) far->collect(done);
}

std::string Store::failure() const {
  const Remote* far = remote();
  return far ? far->failure() : "";
}

void Store::abandon() {
  if (Remote* far = remote()) far->close();
}

}  // namespace qb
