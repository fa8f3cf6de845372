// A directory of named texts, each replaced atomically and durably: the definitions. Knows no XML.
//
// load() repairs what a crash can leave: temporary files and marks without a text go, texts that cannot be read are renamed to
// ".broken-<name>" and reported. One bad file never hides the others.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "conf/base/result.h"

namespace virtuserns {

inline constexpr std::size_t kMaxStoredBytes = 4 * 1024 * 1024;

class Store {
 public:
  struct Item {
    std::string name, content;
    bool autostart = false;
  };
  struct Loaded {
    std::vector<Item> items;
    std::vector<std::string> problems;
  };

  // `suffix`: ".xml". A name is what stands before it; no '/', no leading '.'.
  Store(std::string directory, std::string suffix) : directory_(std::move(directory)), suffix_(std::move(suffix)) {}

  // Makes the directory (and autostart/ below it) when there is none.
  [[nodiscard]] Result<Loaded> load() const;
  // Durable when it returns without an error; after an error the old text is intact.
  [[nodiscard]] Result<void> save(const std::string& name, std::string_view content) const;
  // The text and its autostart mark. Missing ones are no error.
  [[nodiscard]] Result<void> remove(const std::string& name) const;
  // autostart/<name><suffix> -> ../<name><suffix>, as libvirt marks it.
  [[nodiscard]] Result<void> set_autostart(const std::string& name, bool on) const;
  // For a text that was read but means nothing to the caller.
  void set_aside(const std::string& name) const;

 private:
  [[nodiscard]] std::string path(const std::string& name) const { return directory_ + "/" + name + suffix_; }
  [[nodiscard]] std::string mark(const std::string& name) const {
    return directory_ + "/autostart/" + name + suffix_;
  }
  enum class Keep { kLinked, kMoved };
  template <typename Change>
  [[nodiscard]] Result<void> change(const std::string& name, Keep keep, Change&& change) const;
  void drop_lone_marks() const;
  std::string directory_, suffix_;
};

}  // namespace virtuserns
