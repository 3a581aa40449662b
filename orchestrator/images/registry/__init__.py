"""Everything that speaks to a registry: names go in, verified bytes come out.

Pure, by data alone:
    challenges  WWW-Authenticate -> the challenges it holds
    manifests   manifests and indexes as values: media types, limits, what is refused and why
    platforms   which entry of an index fits a machine
    ranges      Content-Range, the Range of an upload, Link: rel="next"
    backoff     how long to wait before the next try
    proxies     which proxy the environment names for a URL
    blame       a registry's answer -> the error that is raised

At the edge:
    hosts       mirrors, insecure hosts, certificates: what the files of this machine say about a registry
    tls         those certificates as an SSL context
    credentials reading, storing and erasing: config.json, auth.json, helper programs
    transport   the one door to httpx: a request, its redirects, its bounded answer
    tokens      who we are to an endpoint: Basic, or Bearer tokens and when to ask for new ones
    conversation whom to ask, by which scheme, as whom, how patiently
    client      Registry: manifests, small blobs, where workers find the large ones, tags, catalog
    selection   a name -> the manifest and config for one platform
    current     what names mean at their registries now
    attached    signatures and attestations that a registry has beside an image
    login       a credential is tried, kept, forgotten
    search      a registry's catalog, Docker Hub's index
    uploads     blobs and manifests on their way up

Layer bodies are not read here but by the workers, which get a `BlobSource`. Does not belong here: the store,
what a terminal shows, tar.

Whatever a registry says is hostile until its digest fits: answers are bounded, an answer's HTML never
reaches the user, credentials go to nobody but the host they belong to and the token server it names.
Source: OCI distribution specification 1.1; the token flow is Docker's ("token authentication").
"""

import sys

# httpx imports its own command line if it can, and rich with it: 50 ms that nobody here has a use for.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
