#include "xml/schema.h"

#include <libxml/relaxng.h>
#include <unistd.h>

#include <memory>

namespace virtuserns::xml {

namespace {

struct Free {
  void operator()(xmlRelaxNGParserCtxt* context) const { xmlRelaxNGFreeParserCtxt(context); }
  void operator()(xmlRelaxNG* schema) const { xmlRelaxNGFree(schema); }
  void operator()(xmlRelaxNGValidCtxt* context) const { xmlRelaxNGFreeValidCtxt(context); }
};

// libxml2 reports from the innermost choice outwards; the first few lines are what helps.
struct Complaints {
  std::string text;
  static void add(void* self, xmlErrorPtr error) {
    auto& text = static_cast<Complaints*>(self)->text;
    if (!error || !error->message || text.size() > 512) return;
    if (!text.empty()) text += "; ";
    if (error->line > 0) text += "line " + std::to_string(error->line) + ": ";
    text += printable(trim(error->message));
  }
};

}  // namespace

Result<void> validate_schema(const Document& document, const std::string& file, const std::string& directory) {
  const std::string path = directory + "/" + file;
  if (::access(path.c_str(), R_OK) != 0) {
    auto error =
        sys_fail("validate the XML: libvirt's schema " + quote(path) + " is needed (package libvirt-common)");
    error.code = VIR_ERR_OPERATION_UNSUPPORTED;
    return error;
  }
  Complaints complaints;
  const std::unique_ptr<xmlRelaxNGParserCtxt, Free> parser(xmlRelaxNGNewParserCtxt(path.c_str()));
  if (!parser) return fail(VIR_ERR_INTERNAL_ERROR, "read schema " + quote(path));
  xmlRelaxNGSetParserStructuredErrors(parser.get(), Complaints::add, &complaints);
  const std::unique_ptr<xmlRelaxNG, Free> schema(xmlRelaxNGParse(parser.get()));
  if (!schema) return fail(VIR_ERR_INTERNAL_ERROR, "read schema " + quote(path) + ": " + complaints.text);
  const std::unique_ptr<xmlRelaxNGValidCtxt, Free> validator(xmlRelaxNGNewValidCtxt(schema.get()));
  if (!validator) return fail(VIR_ERR_NO_MEMORY, "validate the XML");
  xmlRelaxNGSetValidStructuredErrors(validator.get(), Complaints::add, &complaints);
  if (xmlRelaxNGValidateDoc(validator.get(), document.get()) != 0)
    return fail(VIR_ERR_XML_INVALID_SCHEMA,
                "the XML does not follow libvirt's schema " + quote(file) + ": " + complaints.text);
  return {};
}

}  // namespace virtuserns::xml
