# kernels.cmake - csrc/kernels, one file per family and instruction set: NAME_ISA.c is compiled with EL_FLAGS_ISA, any
# other file with no instruction set named. The same word is the CPU feature in csrc/base/cpu.h.
# Kernels are C, not C++: inline functions shared by differently flagged C++ files leak instructions at link time.

include(CheckCCompilerFlag)

set(EL_FLAGS_ref -fno-tree-vectorize) # stays scalar
set(EL_FLAGS_avx2 -mavx -mavx2 -mfma -mf16c)
set(EL_FLAGS_avxvnni ${EL_FLAGS_avx2} -mavxvnni)
set(EL_FLAGS_avx512 ${EL_FLAGS_avx2} -mavx512f -mavx512cd -mavx512bw -mavx512vl -mavx512dq -mavx512vnni)
set(EL_FLAGS_avxvnni_evex ${EL_FLAGS_avx512})
set(EL_FLAGS_neon "") # 64-bit ARM's baseline; for 32-bit ARM see below
set(EL_FLAGS_dotprod -march=armv8.2-a+dotprod)
set(EL_FLAGS_i8mm -march=armv8.2-a+dotprod+i8mm)
set(EL_ISAS_x86_64 ref avx2 avxvnni avx512)
set(EL_ISAS_arm64 ref neon dotprod i8mm)
set(EL_ISAS_arm32 ref)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^armv[78]") # a library for ARMv6 says in its attributes that it has no NEON
  list(APPEND EL_ISAS_arm32 neon)
endif()
set(EL_ISAS_generic ref)

file(GLOB kernels CONFIGURE_DEPENDS csrc/kernels/*.c)
add_library(edgellm_kernels OBJECT)
if(EL_ARCH STREQUAL "arm32" AND "neon" IN_LIST EL_ISAS_arm32)
  set(EL_FLAGS_neon -march=armv7-a -mfpu=neon-vfpv4)
  check_c_compiler_flag(-mfp16-format=ieee EL_HAS_FP16_FORMAT) # gcc has no half floats without it, clang not the flag
  if(EL_HAS_FP16_FORMAT)
    list(APPEND EL_FLAGS_neon -mfp16-format=ieee)
  endif()
  list(FILTER kernels EXCLUDE REGEX "/(rows|maps)_neon\\.c$") # kernels.c says why
  target_compile_definitions(edgellm_kernels PRIVATE EL_NEON32)
endif()
if(EL_ARCH STREQUAL "x86_64")
  # AVX-VNNI's instructions exist in two encodings. The second object of the same source is AVX-512's: a file that
  # includes it, since CMake compiles a file once per target.
  foreach(source IN LISTS kernels)
    get_filename_component(name "${source}" NAME_WE)
    if(name MATCHES "_avxvnni$")
      set(evex "${PROJECT_BINARY_DIR}/kernels/${name}_evex.c")
      file(CONFIGURE OUTPUT "${evex}" CONTENT "#define EL_EVEX\n#include \"@source@\"\n" @ONLY)
      target_sources(edgellm_kernels PRIVATE "${evex}")
      set_source_files_properties("${evex}" PROPERTIES COMPILE_OPTIONS "${EL_FLAGS_avxvnni_evex}")
    endif()
  endforeach()
  check_c_compiler_flag(-mavxvnni EL_HAS_AVXVNNI) # gcc 11, clang 12
  if(NOT EL_HAS_AVXVNNI)
    list(REMOVE_ITEM EL_ISAS_x86_64 avxvnni)
    target_compile_definitions(edgellm_kernels PRIVATE EL_NO_AVXVNNI)
  endif()
endif()
foreach(source IN LISTS kernels)
  get_filename_component(name "${source}" NAME_WE)
  if(NOT name MATCHES "_(ref|avx2|avxvnni|avx512|neon|dotprod|i8mm)$")
    target_sources(edgellm_kernels PRIVATE ${source})
  elseif(CMAKE_MATCH_1 IN_LIST EL_ISAS_${EL_ARCH})
    target_sources(edgellm_kernels PRIVATE ${source})
    set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "${EL_FLAGS_${CMAKE_MATCH_1}}")
  endif()
endforeach()
target_include_directories(edgellm_kernels PUBLIC include csrc/base csrc/kernels)
target_link_libraries(edgellm_kernels PRIVATE el_flags el_warnings)
# No kernel looks at errno or at the flags of floating-point exceptions, and maps.h becomes vectors only without them.
target_compile_options(edgellm_kernels PRIVATE -fno-math-errno -fno-trapping-math)
