# build_ggml.cmake - ggml's CPU parts as static libraries, with our own source lists.
# ggml's own CMake files are not used: they inherit instruction sets from the build machine, look for OpenMP, git and
# ccache, and install versioned libraries. The lists here are what edgellm calls, no more.
#   ggml_base               tensors, graphs, allocation, quantization formats: no instruction set named
#   el_ggml_cpu(name ...)   ggml's CPU backend for one instruction set

set(EL_GGML_BASE_SOURCES ggml.c ggml-alloc.c ggml-backend.cpp ggml-backend-meta.cpp ggml-quants.c ggml-threading.cpp)
# left out: ggml.cpp (sets the process's terminate handler), ggml-backend-reg.cpp and -dl.cpp (look for libraries),
# ggml-opt.cpp (training), gguf.cpp (ours is csrc/gguf)
set(EL_GGML_CPU_SOURCES
    ggml-cpu.c ggml-cpu.cpp repack.cpp hbm.cpp quants.c traits.cpp amx/amx.cpp amx/mmq.cpp binary-ops.cpp
    unary-ops.cpp vec.cpp ops.cpp llamafile/sgemm.cpp)

if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$" AND CMAKE_SIZEOF_VOID_P EQUAL 8)
  set(EL_ARCH x86_64)
  set(EL_GGML_CPU_ARCH arch/x86/quants.c arch/x86/repack.cpp)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64|ARM64)$")
  set(EL_ARCH arm64)
  set(EL_GGML_CPU_ARCH arch/arm/quants.c arch/arm/repack.cpp)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^arm")
  set(EL_ARCH arm32)
  set(EL_GGML_CPU_ARCH arch/arm/quants.c arch/arm/repack.cpp)
else()
  set(EL_ARCH generic) # ggml's plain C
  set(EL_GGML_CPU_ARCH "")
endif()

file(STRINGS "${EL_GGML_DIR}/CMakeLists.txt" lines REGEX "^set\\(GGML_VERSION_(MAJOR|MINOR|PATCH) ")
string(REGEX REPLACE "[^0-9;]" "" lines "${lines}")
list(JOIN lines "." EL_GGML_VERSION)

# What every ggml source is compiled with. Warnings are theirs to judge, so they are off.
add_library(ggml_flags INTERFACE)
target_include_directories(ggml_flags SYSTEM INTERFACE "${EL_GGML_DIR}/include")
target_compile_definitions(ggml_flags INTERFACE $<$<PLATFORM_ID:Linux,Android>:_GNU_SOURCE>
                           $<$<PLATFORM_ID:Darwin,iOS>:_DARWIN_C_SOURCE> _XOPEN_SOURCE=600
                           $<$<BOOL:${WIN32}>:_CRT_SECURE_NO_WARNINGS> GGML_SCHED_MAX_COPIES=1)
file(RELATIVE_PATH ggml_from_here "${PROJECT_BINARY_DIR}" "${EL_GGML_DIR}") # as ccache writes it, cmake/flags.cmake
target_compile_options(ggml_flags INTERFACE -w "-ffile-prefix-map=${EL_GGML_DIR}=ggml"
                       "-ffile-prefix-map=${ggml_from_here}=ggml")
if(EDGELLM_SANITIZE MATCHES "undefined")
  # Its x86 products of IQ types load words at any address and shift bits out of an int.
  target_compile_options(ggml_flags INTERFACE -fno-sanitize=alignment,shift)
endif()

function(el_ggml_library name)
  add_library(${name} STATIC ${ARGN})
  target_link_libraries(${name} PRIVATE ggml_flags el_flags)
  target_include_directories(${name} PRIVATE "${EL_GGML_DIR}/src" "${EL_GGML_DIR}/src/ggml-cpu")
  target_include_directories(${name} SYSTEM INTERFACE "${EL_GGML_DIR}/include")
  target_link_libraries(${name} PUBLIC Threads::Threads $<$<BOOL:${UNIX}>:m>)
  set_target_properties(${name} PROPERTIES EXCLUDE_FROM_ALL ON)
endfunction()

set(sources ${EL_GGML_BASE_SOURCES})
list(TRANSFORM sources PREPEND "${EL_GGML_DIR}/src/")
el_ggml_library(ggml_base ${sources})
target_compile_definitions(ggml_base PRIVATE "GGML_VERSION=\"${EL_GGML_VERSION}\"" "GGML_COMMIT=\"unknown\"")

# el_ggml_cpu(<isa> [flags...]): static library ggml_cpu_<isa> and, from ggml_module.c, the table that describes it.
function(el_ggml_cpu isa)
  set(sources ${EL_GGML_CPU_SOURCES} ${EL_GGML_CPU_ARCH})
  list(TRANSFORM sources PREPEND "${EL_GGML_DIR}/src/ggml-cpu/")
  el_ggml_library(ggml_cpu_${isa} ${sources})
  target_compile_definitions(ggml_cpu_${isa} PRIVATE GGML_USE_LLAMAFILE)
  target_compile_options(ggml_cpu_${isa} PRIVATE ${ARGN})
  target_link_libraries(ggml_cpu_${isa} PUBLIC ggml_base)

  # Baseline flags, so that asking a module what it is never needs what it asks for.
  add_library(ggml_module_${isa} OBJECT csrc/cpu/ggml_module.c)
  target_link_libraries(ggml_module_${isa} PRIVATE el_flags el_warnings)
  target_include_directories(ggml_module_${isa} PRIVATE include)
  target_include_directories(ggml_module_${isa} SYSTEM PRIVATE "${EL_GGML_DIR}/include")
  target_compile_definitions(ggml_module_${isa} PRIVATE EDGELLM_BUILD "EL_GGML_ISA=\"${isa}\""
                             "GGML_VERSION=\"${EL_GGML_VERSION}\"")
endfunction()
