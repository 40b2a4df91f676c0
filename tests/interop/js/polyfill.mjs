// js-libp2p asks for Node 22; this is all that Node 20 lacks of it.
Promise.withResolvers ??= function () {
  const parts = {}
  parts.promise = new this((resolve, reject) => Object.assign(parts, { resolve, reject }))
  return parts
}
