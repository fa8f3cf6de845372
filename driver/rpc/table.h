// The table of procedures: what each number is called, who may call it, where it runs, and what answers it.
//
// Adding a procedure: its structs in protocol.h, a handler in handlers_<family>.cpp, declared in handlers.h, and one
// row in table.cpp (its line in table_unsupported.cpp goes).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "conf/base/result.h"
#include "driver/rpc/access.h"
#include "driver/rpc/call.h"

namespace virtuserns::rpc {

enum class Access { kRead, kWrite };                  // kWrite: refused on read-only connections, before decoding
enum class Needs { kNothing, kAuth, kOpen };          // what must have happened on the connection
enum class Priority { kInline, kHigh, kLow, kAuth };  // kInline: runs in the loop's thread, must not block or wait

// Decodes the arguments, calls the handler, appends the encoded reply.
using Run = Result<void> (*)(Call& call, std::span<const std::uint8_t> payload, std::vector<std::uint8_t>& reply);

struct Row {
  std::int32_t number = 0;
  const char* name = nullptr;  // of the public function: errors mention it
  Run run = nullptr;           // nullptr: answers NO_SUPPORT
  Access access = Access::kRead;
  Right right = {};  // of whoever is no administrator
  Priority priority = Priority::kLow;
  Needs needs = Needs::kOpen;
  std::uint32_t write_flags = 0;  // bits of `flags` (or the value of `source`) that need a read-write connection
};

struct UnsupportedRow {
  std::int32_t number;
  const char* name;
  Access access;
  Priority priority;
};

[[nodiscard]] std::span<const Row> supported_rows();  // of the remote program, by number
[[nodiscard]] std::span<const UnsupportedRow> unsupported_rows();
[[nodiscard]] bool is_known_program(std::uint32_t program);
// nullptr: unknown procedure.
[[nodiscard]] const Row* find_row(std::uint32_t program, std::int32_t procedure);

}  // namespace virtuserns::rpc
