#include "source/nbd_export.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <sstream>

namespace qb {

namespace {

// The NBD protocol, "Block size constraints": at most 64 KiB, and a power of two.
constexpr int64_t kMostBlockMin = 64 << 10;

// A string that libnbd allocates, as one line; empty if the server sent none.
std::string take_text(char* text) {
  std::string taken = text ? text : "";
  free(text);
  std::replace(taken.begin(), taken.end(), '\n', ' ');
  return taken;
}

void read_block_sizes(nbd_handle* handle, NbdExport& info) {
  const NbdLibrary& nbd = nbd_library();
  // 0 or less: the server did not say.
  int64_t least = nbd.get_block_size(handle, LIBNBD_SIZE_MINIMUM);
  int64_t most = nbd.get_block_size(handle, LIBNBD_SIZE_MAXIMUM);
  if (least > kMostBlockMin || (least > 0 && (least & (least - 1)) != 0)) {
    throw NbdError(EPROTO, "a minimum block size of " + std::to_string(least) + " bytes");
  }
  if (least > 0) info.block_min = static_cast<uint64_t>(least);
  if (most > 0) info.block_max = std::min(info.block_max, static_cast<uint64_t>(most));
  // Its last bytes could not be asked for.
  if (info.size % info.block_min != 0) {
    throw NbdError(EPROTO, "its size of " + std::to_string(info.size) +
                               " bytes is not a multiple of its block size of " +
                               std::to_string(info.block_min));
  }
  info.block_max -= info.block_max % info.block_min;
  if (info.block_max == 0) {
    throw NbdError(EPROTO, "a maximum block size of " + std::to_string(most) + " bytes");
  }
}

std::string fingerprint_of(nbd_handle* handle, const NbdExport& info) {
  const NbdLibrary& nbd = nbd_library();
  std::ostringstream out;
  out << "size " << info.size << '\n';
  const struct {
    const char* name;
    int (*ask)(nbd_handle*);
  } flags[] = {
      {"read-only", nbd.is_read_only},
      {"flush", nbd.can_flush},
      {"fua", nbd.can_fua},
      {"rotational", nbd.is_rotational},
      {"trim", nbd.can_trim},
      {"write-zeroes", nbd.can_zero},
      {"do-not-fragment", nbd.can_df},
      {"multi-conn", nbd.can_multi_conn},
      {"cache", nbd.can_cache},
      {"fast-zero", nbd.can_fast_zero},
  };
  for (const auto& flag : flags) out << flag.name << ' ' << (flag.ask(handle) == 1) << '\n';
  for (int size : {LIBNBD_SIZE_MINIMUM, LIBNBD_SIZE_PREFERRED, LIBNBD_SIZE_MAXIMUM}) {
    out << "block-size " << nbd.get_block_size(handle, size) << '\n';
  }
  out << "name " << take_text(nbd.get_canonical_export_name(handle)) << '\n';
  out << "description " << take_text(nbd.get_export_description(handle)) << '\n';
  return out.str();
}

}  // namespace

NbdExport describe_export(const NbdConnection& connection,
                          const std::vector<std::string>& contexts) {
  const NbdLibrary& nbd = nbd_library();
  nbd_handle* handle = connection.handle();
  NbdExport info;
  // Always known of a connection that is ready. Of sizes from 2^63 on libnbd makes negative ones,
  // or -1 with an error: too large either way.
  info.size = static_cast<uint64_t>(nbd.get_size(handle));
  info.multi_conn = nbd.can_multi_conn(handle) == 1;
  info.read_only = nbd.is_read_only(handle) == 1;
  info.can_trim = nbd.can_trim(handle) == 1;
  info.can_zero = nbd.can_zero(handle) == 1;
  info.can_flush = nbd.can_flush(handle) == 1;
  read_block_sizes(handle, info);
  for (const std::string& context : contexts) {
    info.contexts.push_back(nbd.can_meta_context(handle, context.c_str()) == 1);
  }
  info.fingerprint = fingerprint_of(handle, info);
  return info;
}

std::string difference(const std::string& fingerprint, const std::string& other) {
  std::istringstream a(fingerprint), b(other);
  for (std::string line, against; std::getline(a, line);) {
    if (std::getline(b, against) && against == line) continue;
    return line.substr(0, line.find(' '));
  }
  return "";
}

}  // namespace qb
