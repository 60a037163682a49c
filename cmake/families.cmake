# families.cmake - the list of model families: EL_FAMILY(ident) for every line `EL_ARCH(ident) = ...` of the files in
# csrc/models/families, sorted by file and then as they stand there. A new file needs no entry anywhere.
set(EL_FAMILIES_DIR "${CMAKE_CURRENT_BINARY_DIR}/families")
file(GLOB files CONFIGURE_DEPENDS csrc/models/families/*.c)
list(SORT files)
set(text "")
foreach(file ${files})
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${file}") # a second family in an old file
  file(STRINGS "${file}" lines REGEX "^EL_ARCH\\([a-z0-9_]+\\) =")
  foreach(line ${lines})
    string(REGEX REPLACE "^EL_ARCH\\(([a-z0-9_]+)\\).*" "\\1" ident "${line}")
    string(APPEND text "EL_FAMILY(${ident})\n")
  endforeach()
endforeach()
file(WRITE "${EL_FAMILIES_DIR}/families.inc.new" "${text}")
configure_file("${EL_FAMILIES_DIR}/families.inc.new" "${EL_FAMILIES_DIR}/families.inc" COPYONLY) # keeps its time
