/* onceover: visual anomaly inspection on edge devices. The C ABI; this version carries the status codes only,
 * the one list that C++ (base/error.h) and Python (onceover/errors.py) share. */
#ifndef ONCEOVER_H
#define ONCEOVER_H

#ifdef __cplusplus
extern "C" {
#endif

typedef enum onceover_status {
  ONCEOVER_OK = 0,
  ONCEOVER_INPUT = 1,         /* an image or file of the user's cannot be used */
  ONCEOVER_USAGE = 2,         /* an argument makes no sense */
  ONCEOVER_UNKNOWN_NAME = 3,  /* an engine or instruction set that does not exist */
  ONCEOVER_PACKAGE = 4,       /* a package is damaged, or is not a package */
  ONCEOVER_UNSUPPORTED = 5,   /* another format version, or an unknown required member */
  ONCEOVER_ENGINE = 6,        /* the engine failed, or its answer cannot be trusted */
  ONCEOVER_MEMORY = 7,        /* more memory needed than allowed or available */
  ONCEOVER_NOT_FITTED = 8,    /* a detector was used before fit (Python only) */
  ONCEOVER_MISSING_EXTRA = 9, /* an optional dependency is absent (Python only) */
  ONCEOVER_VERIFICATION = 10, /* a package does not reproduce its own record */
  ONCEOVER_INTERNAL = 11,     /* a defect of onceover itself */
  ONCEOVER_OUTPUT = 12        /* a file cannot be written */
} onceover_status;

#ifdef __cplusplus
}
#endif
#endif
