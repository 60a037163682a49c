/* _tensors.cpp - GGUF tensors as NumPy arrays: sizes checked, memory made, Python's lock released, and one table of
 * libedgellm called, so that what runs here is what runs models. __init__.py is what people use: it has brought
 * arguments to the types and dimensions below; sizes are checked here. */
#include <dlfcn.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <optional>
#include <string>

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "api/tensors_table.h"

namespace py = pybind11;

using Floats = py::array_t<float, py::array::c_style>;
using Bytes = py::array_t<std::uint8_t>;

namespace
{

const el_tensors_table *library;

/* edgellm's own exceptions: InvalidArgument is a ValueError, OutOfMemory a MemoryError. */
[[noreturn]] void fail(const char *exception, const std::string &text)
{
    py::set_error(py::module_::import("edgellm.errors").attr(exception), text.c_str());
    throw py::error_already_set();
}

[[noreturn]] void refuse(const std::string &text) { fail("InvalidArgument", text); }

std::string str(std::int64_t n) { return std::to_string(n); }

void load(const std::string &path)
{
    void *handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!handle)
        throw py::import_error(std::string("the edgellm library cannot be loaded: ") + dlerror());
    auto table = reinterpret_cast<const el_tensors_table *(*)()>(dlsym(handle, "edgellm_tensors_table"));
    const el_tensors_table *found = table ? table() : nullptr;
    if (!found || found->struct_size != sizeof(el_tensors_table) || found->kernels_size != sizeof(el_kernels) ||
        std::string(found->version) != EDGELLM_VERSION)
        throw py::import_error(path + " and edgellm.tensors are not of one build; build and install edgellm again");
    library = found;
}

el_tensor_type type_of(int number)
{
    el_tensor_type type;
    for (std::size_t i = 0; library->type_at(i, &type); i++)
        if (type.number == number)
            return type;
    refuse("no type of weights has the number " + str(number));
}

/* Bytes of a row of k values. k is a length of an array, or has been compared with one. */
std::size_t row_bytes(const el_tensor_type &type, std::int64_t k)
{
    if (k % type.elements != 0)
        refuse("rows of " + str(k) + " values; " + type.name + " has blocks of " + str(type.elements));
    return static_cast<std::size_t>(k / type.elements) * type.bytes;
}

const el_kernels *kernels(const std::string &isa)
{
    const el_kernels *found = isa.empty() ? library->kernels_get() : library->kernels_named(isa.c_str());
    if (!found)
        refuse("no kernels are called '" + isa + "' on this CPU; kernels() lists them");
    return found;
}

el_act_kind act_kind(const el_tensor_type &type)
{
    const int kind = library->act_kind(type.number);
    if (kind < 0)
        refuse(std::string("edgellm has no kernel for ") + type.name + "; dequantize it and let NumPy multiply");
    return static_cast<el_act_kind>(kind);
}

/* Calls run(row0, n_rows) for all rows in slices of some 50 ms, without Python's lock; Ctrl-C is seen in between. */
template <typename Run> void in_slices(std::int64_t n_rows, double work_per_row, double work_per_slice, const Run &run)
{
    const auto per_slice = static_cast<std::int64_t>(1 + work_per_slice / (work_per_row + 1));
    for (std::int64_t row = 0; row < n_rows; row += per_slice) {
        edgellm_status status;
        std::string text;
        {
            const py::gil_scoped_release unlocked;
            status = run(row, std::min(per_slice, n_rows - row));
            if (status != EDGELLM_OK)
                text = library->last_error();
        }
        if (status != EDGELLM_OK)
            fail(status == EDGELLM_ENOMEM ? "OutOfMemory" : "InvalidArgument", text);
        if (PyErr_CheckSignals() != 0)
            throw py::error_already_set();
    }
}

py::list types()
{
    py::list list;
    el_tensor_type t;
    for (std::size_t i = 0; library->type_at(i, &t); i++)
        list.append(py::make_tuple(t.name, t.number, t.elements, t.bytes, t.own_kernel, t.quantizes, t.needs_imatrix));
    return list;
}

py::list kernel_names()
{
    py::list list;
    const char *isa;
    for (std::size_t i = 0; (isa = library->isa_at(i)) != nullptr; i++)
        if (library->kernels_named(isa))
            list.insert(0, isa);
    return list;
}

/* x [n_rows, k] -> bytes [n_rows, row_bytes] */
Bytes quantize(const Floats &x, int number, const std::optional<Floats> &imatrix)
{
    const el_tensor_type type = type_of(number);
    const std::int64_t n_rows = x.shape(0), k = x.shape(1);
    const std::size_t bytes = row_bytes(type, k);
    if (imatrix && imatrix->size() != k)
        refuse("imatrix has " + str(imatrix->size()) + " values, rows have " + str(k));
    Bytes y({static_cast<std::size_t>(n_rows), bytes});
    const float *from = x.data(), *weights = imatrix ? imatrix->data() : nullptr;
    std::uint8_t *to = y.mutable_data();
    if (k > 0)
        in_slices(n_rows, static_cast<double>(k), 5e5, [&](std::int64_t row, std::int64_t n) {
            return library->quantize(number, to, from, row, n, k, weights);
        });
    return y;
}

/* w: contiguous bytes of whole rows of k values -> floats, as many as there are */
Floats dequantize(const Bytes &w, int number, std::int64_t k)
{
    const std::size_t bytes = row_bytes(type_of(number), k);
    if (k <= 0 || bytes == 0 || w.strides(0) != 1 || static_cast<std::size_t>(w.size()) % bytes != 0)
        refuse(str(w.size()) + " bytes are no whole number of rows of " + str(k) + " values");
    const std::int64_t n_rows = w.size() / static_cast<std::int64_t>(bytes);
    Floats y(n_rows * k);
    const std::uint8_t *from = w.data();
    float *to = y.mutable_data();
    in_slices(n_rows, static_cast<double>(k), 1e8,
              [&](std::int64_t row, std::int64_t n) { return library->dequantize(number, to, from, row, n, k); });
    return y;
}

struct Aligned { /* memory at a multiple of 64 */
    explicit Aligned(std::size_t n_bytes) : data(std::aligned_alloc(64, (n_bytes + 64) / 64 * 64))
    {
        if (!data)
            throw std::bad_alloc();
    }
    ~Aligned() { std::free(data); }
    Aligned(const Aligned &) = delete;
    Aligned &operator=(const Aligned &) = delete;
    void *data;
};

/* Rows of activations as the kernels want them, in 64-aligned memory of stride bytes a row. */
void quantize_rows(const el_kernels *t, el_act_kind kind, char *to, std::size_t stride, const float *x, std::int64_t n,
                   std::int64_t k)
{
    std::memset(to, 0, static_cast<std::size_t>(n) * stride); /* the gaps */
    for (std::int64_t r = 0; r < n; r++)
        t->act_quantize(kind, to + static_cast<std::size_t>(r) * stride, x + r * k, k);
}

/* x [n, k] -> bytes [n, stride] */
Bytes quantize_activations(const Floats &x, int number, const std::string &isa)
{
    const el_tensor_type type = type_of(number);
    const el_kernels *t = kernels(isa);
    const el_act_kind kind = act_kind(type);
    const std::int64_t n = x.shape(0), k = x.shape(1);
    (void)row_bytes(type, k);
    const std::size_t stride = library->act_row_bytes(kind, k);
    Bytes y({static_cast<std::size_t>(n), stride});
    const Aligned rows(static_cast<std::size_t>(n) * stride);
    const float *from = x.data();
    std::uint8_t *to = y.mutable_data();
    {
        const py::gil_scoped_release unlocked;
        quantize_rows(t, kind, static_cast<char *>(rows.data), stride, from, n, k);
        std::memcpy(to, rows.data, static_cast<std::size_t>(n) * stride);
    }
    return y;
}

/* w [n_rows, row_bytes] with bytes side by side and any distance between rows, x [n, k] -> floats [n, n_rows] */
Floats matmul(const Bytes &w, const Floats &x, int number, const std::string &isa)
{
    const el_tensor_type type = type_of(number);
    const el_kernels *t = kernels(isa);
    const el_act_kind kind = act_kind(type);
    const std::int64_t n_rows = w.shape(0), n = x.shape(0), k = x.shape(1);
    const std::size_t bytes = row_bytes(type, k);
    if (static_cast<std::size_t>(w.shape(1)) != bytes)
        refuse("rows of w have " + str(w.shape(1)) + " bytes; " + str(k) + " values of " + type.name + " take " +
               str(static_cast<std::int64_t>(bytes)));
    if (n_rows > 0 && bytes > 0 && (w.strides(1) != 1 || (n_rows > 1 && w.strides(0) < w.shape(1))))
        refuse("rows of w have to be contiguous");
    Floats y({n, n_rows});
    float *to = y.mutable_data();
    if (n_rows == 0 || n == 0 || k == 0) {
        std::memset(to, 0, static_cast<std::size_t>(y.nbytes()));
        return y;
    }
    const std::size_t stride = library->act_row_bytes(kind, k);
    const Aligned rows(static_cast<std::size_t>(n) * stride), scratch(library->matmul_scratch(number, k));
    const std::uint8_t *weights = w.data();
    const auto distance = static_cast<std::size_t>(n_rows > 1 ? w.strides(0) : w.shape(1));
    const float *from = x.data();
    {
        const py::gil_scoped_release unlocked;
        quantize_rows(t, kind, static_cast<char *>(rows.data), stride, from, n, k);
    }
    in_slices(n_rows, static_cast<double>(k) * static_cast<double>(n), 1e8, [&](std::int64_t row, std::int64_t count) {
        t->matmul[number](to + row, n_rows, weights + static_cast<std::size_t>(row) * distance, distance, count,
                          rows.data, stride, n, k, scratch.data);
        return EDGELLM_OK;
    });
    return y;
}

} // namespace

PYBIND11_MODULE(_tensors, m)
{
    const auto strict = [](const char *name) { return py::arg(name).noconvert(); };

    m.def("load", &load);
    m.def("types", &types);
    m.def("kernel_names", &kernel_names);
    m.def("default_kernel", [] { return library->kernels_get()->isa; });
    m.def("quantize", &quantize, strict("x"), py::arg("type"), py::arg("imatrix").noconvert());
    m.def("dequantize", &dequantize, strict("w"), py::arg("type"), py::arg("k"));
    m.def("quantize_activations", &quantize_activations, strict("x"), py::arg("type"), py::arg("isa"));
    m.def("matmul", &matmul, strict("w"), strict("x"), py::arg("type"), py::arg("isa"));
}
