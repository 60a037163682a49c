# kernels.cmake - csrc/kernels as the object library edgellm_kernels: FAMILY_ISA.c is compiled for that instruction set,
# everything else for the baseline. Which one runs is chosen in kernels.c, so a name here, a file's suffix and a name in
# EDGELLM_CPU_DISABLE are one word. Needs EL_ARCH, el_flags and el_warnings.

set(EL_FLAGS_ref -fno-tree-vectorize) # the definition stays scalar
set(EL_FLAGS_avx2 -mavx2 -mfma -mf16c)

set(EL_ISAS ref)
if(EL_ARCH STREQUAL "x86_64")
  list(APPEND EL_ISAS avx2)
endif()

add_library(edgellm_kernels OBJECT "${PROJECT_SOURCE_DIR}/csrc/kernels/kernels.c"
            "${PROJECT_SOURCE_DIR}/csrc/kernels/blocks.c")
target_include_directories(edgellm_kernels PRIVATE "${PROJECT_SOURCE_DIR}/include" "${PROJECT_SOURCE_DIR}/csrc/base"
                           "${PROJECT_SOURCE_DIR}/csrc/kernels")
target_link_libraries(edgellm_kernels PRIVATE el_flags el_warnings)

# el_kernels(matmul ref avx2): the files of a family, for those of its instruction sets that this architecture has
function(el_kernels family)
  foreach(isa IN LISTS ARGN)
    if(isa IN_LIST EL_ISAS)
      set(source "${PROJECT_SOURCE_DIR}/csrc/kernels/${family}_${isa}.c")
      target_sources(edgellm_kernels PRIVATE "${source}")
      set_source_files_properties("${source}" PROPERTIES COMPILE_OPTIONS "${EL_FLAGS_${isa}}")
    endif()
  endforeach()
endfunction()

el_kernels(matmul ref avx2)
el_kernels(superblock avx2)
el_kernels(floats avx2)
el_kernels(rows ref avx2)
el_kernels(attention ref avx2)
