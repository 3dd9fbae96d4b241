/** The HTTP status of each gRPC code, in their order, as grpc-gateway has them (kv.md section 8). */
const statuses = [200, 408, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401]

export const httpStatusOf = (code: number): number => statuses[code] ?? 500
