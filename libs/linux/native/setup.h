/* Steps of building a container that pods (setup.c) and the OCI command line (oci-*.c) share. They end in `fail`. */
#ifndef KILN_SETUP_H
#define KILN_SETUP_H

#include "plan.h"

/* The container's root. Everything resolves in it, so that no symlink of an image leads outside. */
extern int root;
int open_in_root(const char *path, int flags);
/* A static text: /proc/self/fd/N. */
const char *by_descriptor(int fd);
/* Makes the folders that lead to `path`, and returns the last one open; `name` is what is left to create in it. */
int open_parent(const char *path, const char **name);
/* Opens a place in the root, made first if it is missing: 1 a folder, 2 an empty file. */
int open_target(const char *path, uint64_t create);
void make_device(const struct record *r);
void make_symlink(const struct record *r);
/* Read-only and masked paths, and a working directory that is missing. */
void protect_paths(const struct plan *plan);
/* Binds what one descriptor is at the place of the other, which is closed. */
void bind_descriptor(int source, int place, const char *path);
void drop_bounding(uint64_t keep);
void set_capabilities(const struct record *caps);
void set_user(const struct plan *plan, const struct record *process);
void execute(char **arguments, char **environment, int probe);
char **list_of(const struct plan *plan, uint16_t op);

/* oci-init.c: host name, loopback and kernel parameters of the namespaces that the caller is in. */
void set_namespaces_up(const struct plan *plan);
/* oci-mounts.c: one mount; `source` is what was opened for it before, or -1. */
void attach(const struct record *r, int source, uint64_t propagation);
/* oci-mounts.c: the root becomes the tree's, and the host's is gone. */
void change_root(const struct plan *plan);

#endif
